"""Run the checks of `make lint`: all of them, or those that are named, such as `make lint ARGS="types imports"`.

Every check runs, also after one has failed. The settings are in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CHECKS = {
    "style": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "types": ["mypy"],
    "imports": ["lint-imports", "--no-logo"],
    "spelling": ["codespell"],
}


def main() -> None:
    chosen = sys.argv[1:] or list(CHECKS)
    if unknown := set(chosen) - CHECKS.keys():
        sys.exit(f"Unknown check: {', '.join(sorted(unknown))}. The checks are {', '.join(CHECKS)}.")
    failed = [name for name in chosen if not passes(name)]
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


def passes(name: str) -> bool:
    program, *arguments = CHECKS[name]
    print(f"== {name}: {program} {' '.join(arguments)}".rstrip(), flush=True)
    path = Path(sys.executable).with_name(program)
    return subprocess.run([path, *arguments], cwd=CHECKOUT).returncode == 0


if __name__ == "__main__":
    main()
