"""The software of the Spark cluster: what is missing is reported, and a failed download leaves nothing behind."""

import os
from pathlib import Path

import pytest

from lakehouse_utils.errors import LocalServerError
from lakehouse_utils.spark import software

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the cluster is unsupported on Windows")


def test_missing_java_or_maven_is_reported(tmp_path, monkeypatch):
    """Missing Java, a Java that is too old, and missing Maven are reported with what to install."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(LocalServerError, match=r"needs Java 17 or newer, but java was not found .*\. Install"):
        software.install(tmp_path, print)
    write_java(programs / "java", "11.0.2")
    with pytest.raises(LocalServerError, match=r"but java is Java 11\. Install a newer one, and set JAVA_HOME"):
        software.install(tmp_path, print)
    write_java(programs / "java", "21")
    with pytest.raises(LocalServerError, match=r"^Maven \(mvn\) is missing\. .* Install it"):
        software.install(tmp_path, print)


def test_failed_download_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    """When Maven fails, the message quotes its error, and no half-filled folder remains."""
    write_java(tmp_path / "java", "17.0.1")
    (tmp_path / "mvn").write_text("#!/bin/sh\necho '[ERROR] No route to host'\nexit 1\n")
    (tmp_path / "mvn").chmod(0o700)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "software"
    (folder / f"spark-{software.SPARK_VERSION}").mkdir(parents=True)
    notes: list[str] = []
    with pytest.raises(LocalServerError, match=r"Maven could not download the jars(?s:.*)No route to host"):
        software.install(folder, notes.append)
    assert len(notes) == 1
    assert "Maven" in notes[0]
    assert {path.name for path in folder.iterdir()} == {"lock", f"spark-{software.SPARK_VERSION}"}


def write_java(path: Path, version: str) -> None:
    """Write a program that prints its version as `java -version` does."""
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    path.chmod(0o700)
