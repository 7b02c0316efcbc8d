"""The software of the Spark cluster: Apache Spark from PyPI, the jars of Delta Lake and S3 from Maven Central."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import escape

from filelock import FileLock

from lakehouse_utils.errors import LocalServerError

# These versions must match: Delta's artifact names the Spark version that it is built for. hadoop-aws must have exactly
# the version of the Hadoop jars in Spark, and the AWS SDK about the version in the POM of hadoop-project.
# pyspark-client has Spark's version.
SPARK_VERSION = "4.2.0"
_SPARK_SHA256 = "5ad689d53570ee1674193fd4f9bda065f0db3be9363a27d2a3406cc457b70b61"
_JARS = (
    "io.delta:delta-spark_4.2_2.13:4.4.0",
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:s3:2.35.5",
    "software.amazon.awssdk:s3-transfer-manager:2.35.5",  # S3A uses it to rename objects
    "software.amazon.awssdk:sts:2.35.5",  # profiles with a role
    "software.amazon.awssdk:sso:2.35.5",  # profiles with single sign-on
    "software.amazon.awssdk:ssooidc:2.35.5",
)
# Spark includes these in other versions, and `bundle` is the whole AWS SDK, 600 MB.
_EXCLUDED_JARS = (
    *(f"org.apache.hadoop:hadoop-client-{part}" for part in ("api", "runtime")),
    *(f"com.fasterxml.jackson.core:jackson-{part}" for part in ("annotations", "core", "databind")),
    *(f"{group}:*" for group in ("io.netty", "org.apache.httpcomponents", "org.apache.logging.log4j")),
    *(f"{group}:*" for group in ("org.apache.parquet", "org.roaringbitmap", "org.scala-lang", "org.slf4j")),
    "commons-codec:commons-codec",
    "commons-logging:commons-logging",
    "com.google.code.findbugs:jsr305",
    "software.amazon.awssdk:bundle",
)
_COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MIN_JAVA_VERSION = 17
_LOG_STORE = Path(__file__).with_name("ConditionalLogStore.scala")


@dataclass(frozen=True)
class Software:
    """What is installed: `spark_path` is SPARK_HOME, `jars_path` the folder of the jars that Spark does not include."""

    spark_path: Path
    jars_path: Path


def install(folder: Path, notify: Callable[[str], None]) -> Software:
    """Return the software in `folder`, and download what is missing there or has another version.

    `notify` is called with a sentence before each download. The downloads total about 480 MB.

    Raises LocalServerError on Windows, if Java or Maven is missing, or if a download fails.
    """
    if sys.platform == "win32":
        raise LocalServerError("The Spark cluster is unsupported on Windows. Run it on Linux or macOS, or inside WSL.")
    _check_java()
    folder.mkdir(parents=True, exist_ok=True)
    jars_version = hashlib.sha256(_pom().encode() + _LOG_STORE.read_bytes()).hexdigest()[:12]
    spark, jars = folder / f"spark-{SPARK_VERSION}", folder / f"jars-{jars_version}"
    with FileLock(folder / "lock"):
        if not jars.is_dir() and not shutil.which("mvn"):
            raise LocalServerError(
                "Maven (mvn) is missing. The Spark cluster needs it to download the jars of Delta Lake and S3. Install "
                "it with your system's package manager, or from https://maven.apache.org."
            )
        if not spark.is_dir():
            notify(f"Downloading Apache Spark {SPARK_VERSION} from PyPI: 450 MB ...")
            _fill(spark, _install_spark)
        if not jars.is_dir():
            notify("Downloading the jars of Delta Lake and S3 with Maven: 30 MB, and some more for Maven itself ...")
            _fill(jars, lambda target: _install_jars(target, spark))
    return Software(spark / "pyspark", jars)


def _java() -> str:
    home = os.environ.get("JAVA_HOME")  # Spark's own scripts also prefer it to PATH
    return str(Path(home, "bin", "java")) if home else "java"


def _check_java() -> None:
    java = _java()
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        output = ""
    version = re.search(r'version "(\d+)', output)
    if not version or int(version[1]) < _MIN_JAVA_VERSION:
        reason = f"{java} is Java {version[1]}" if version else f"{java} was not found or does not work"
        raise LocalServerError(
            f"The Spark cluster needs Java {_MIN_JAVA_VERSION} or newer, but {reason}. Install a newer one, and set "
            "JAVA_HOME to its folder unless it is the first on PATH."
        )


def _fill(target: Path, install: Callable[[Path], None]) -> None:
    """Create the folder `target` with what `install` puts into it. If that fails, the folder is not created."""
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        install(new)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _install_spark(folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"pyspark=={SPARK_VERSION} --hash=sha256:{_SPARK_SHA256}\n")
    # With the tool that created .venv: uv does not install pip.
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uv", "pip"]
    command = [*pip, "install", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)]
    if pip[0] == "uv":
        command += ["--python", sys.executable]
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise LocalServerError(
            f"Apache Spark could not be installed: {pip[0]} cannot be run ({error.strerror}). Install pip into .venv, "
            "or put uv on PATH."
        ) from None
    if done.returncode:
        raise LocalServerError(
            f"pip could not install pyspark {SPARK_VERSION}; its output is above. Check that the package index that "
            "pip is configured for can be reached, and that 2 GB of disk are free."
        )


def _install_jars(folder: Path, spark: Path) -> None:
    _download_jars(folder)
    _compile_log_store(folder, spark)


def _download_jars(folder: Path) -> None:
    pom = folder / "pom.xml"
    pom.write_text(_pom())
    done = subprocess.run(
        [  # noqa: S607  mvn is wherever PATH says
            "mvn",
            "--batch-mode",
            "--strict-checksums",
            "--file",
            str(pom),
            _COPY_DEPENDENCIES,
            f"-DoutputDirectory={folder}",
            "-DincludeScope=runtime",
            "-Dstyle.color=never",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stdout.splitlines()
        shown = [line for line in lines if "ERROR" in line] or lines
        excerpt = "\n".join(f"  {line[:300]}" for line in shown[:3])
        raise LocalServerError(f"Maven could not download the jars of Delta Lake and S3. Its output:\n{excerpt}")


def _compile_log_store(jars: Path, spark: Path) -> None:
    # With the compiler that Spark includes for its shell, so that a Java runtime suffices and no JDK is needed.
    class_path = f"{spark}/pyspark/jars/*{os.pathsep}{jars}/*"
    compiler = [_java(), "-cp", class_path, "scala.tools.nsc.Main", "-usejavacp"]
    done = subprocess.run(
        [*compiler, "-d", str(jars / "log-store.jar"), str(_LOG_STORE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LocalServerError(f"{_LOG_STORE} could not be compiled: {done.stdout.strip()[:600]}")


def _pom() -> str:
    def tag(name: str, *content: str) -> str:
        return f"<{name}>{''.join(content)}</{name}>"

    def coordinates(text: str) -> str:
        names = ("groupId", "artifactId", "version")
        return "".join(tag(name, escape(part)) for name, part in zip(names, text.split(":"), strict=False))

    exclusions = tag("exclusions", *(tag("exclusion", coordinates(text)) for text in _EXCLUDED_JARS))
    dependencies = tag("dependencies", *(tag("dependency", coordinates(text), exclusions) for text in _JARS))
    project = coordinates("lakehouse:jars:1") + tag("packaging", "pom")
    return tag("project", tag("modelVersion", "4.0.0"), project, dependencies) + "\n"
