"""Looks like Python, pip and uv, and only logs how it is called: for tests of the order of steps."""

import os
import pathlib
import shutil
import sys
import time

name, version, itself, *arguments = sys.argv[1:]
QUESTIONS = (["-m", "pip", "config"], ["-m", "pip", "--version"])

if pathlib.Path(arguments[0]).parent == pathlib.Path("scripts"):
    os.execv(sys.executable, [sys.executable, *arguments])  # the scripts themselves are real
with pathlib.Path(os.environ["LOG"]).open("a") as log:
    if arguments[0] not in ("-c", "--version") and arguments[:3] not in QUESTIONS:
        print(name, *arguments, file=log)
sys.version, sys._base_executable = version, itself
sys.version_info = tuple(map(int, version.split(".")))
match arguments:
    case ["-c", code]:
        exec(code)
    case ["-m", "venv", folder] | ["venv", *_, folder]:
        python = pathlib.Path(folder, "bin", "python")
        python.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(itself if name != "uv" else pathlib.Path(itself).with_name("python3"), python)
    case ["-m", "pip", "config", *_]:
        print(os.environ.get("PIP_SAYS", ""))
    case ["-m", "pip", "install", *_] | ["pip", "install", *_]:
        if name == "uv":
            given = {key: value for key, value in os.environ.items() if key.startswith(("UV_", "SSL_", "ALL_PROXY"))}
            pathlib.Path(os.environ["LOG"] + ".uv").write_text(repr(given))
        pathlib.Path(os.environ["LOG"] + ".installing").touch()
        print("Looking in https://reader:s3cr3t@index.example.org/simple")
        time.sleep(float(os.environ.get("INSTALL_TAKES", "0")))
        sys.exit(int(os.environ.get("UV_FAILS" if name == "uv" else "PIP_FAILS", "0")))
    case ["ingestion_processor.py", *rest]:
        print("ran", *rest)
