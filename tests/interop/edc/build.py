"""An Eclipse EDC runtime, put together once from the artifacts that Eclipse publishes.

Maven fetches what ``pom.xml`` pins into ``.cache/edc``; ``javac`` compiles the two extensions
beside it. ``python -m tests.interop.edc.build`` does it ahead of time. Where Java or Maven are
missing, or nothing can be fetched, the tests that need the runtime are skipped, loudly.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
EXTENSIONS = SOURCES / "extensions"
CACHE = SOURCES.parents[2] / ".cache" / "edc"
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
BUILD_TIMEOUT_S = 900


@dataclass(frozen=True)
class Built:
    """The jars of one runtime, and a folder of classes for each extension."""

    java: str
    folder: Path

    def classpath(self, *extensions: str, without: str = "") -> str:
        """The runtime's jars and the named extensions; ``without`` the jars so called."""
        jars = sorted((self.folder / "lib").glob("*.jar"))
        chosen = [jar for jar in jars if not (without and jar.name.startswith(f"{without}-"))]
        return os.pathsep.join(str(path) for path in self._extensions(extensions) + chosen)

    def _extensions(self, names: tuple[str, ...]) -> list[Path]:
        return [self.folder / "extensions" / name for name in names]


def built() -> Built | None:
    """The runtime; built if Java and Maven are here. None if it cannot be had."""
    tools = [shutil.which(tool) for tool in ("java", "javac", "mvn")]
    if any(tool is None for tool in tools):
        return None
    java, javac, maven = (str(tool) for tool in tools)
    folder = CACHE / _pinned()
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done"
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not done.exists() and _fetch(maven, folder) and _compile(javac, folder):
            done.touch()
    return Built(java, folder) if done.exists() else None


def require() -> Built:
    """The runtime, or a skip that nobody overlooks."""
    found = built()
    if found is None:
        message = "NO Eclipse EDC: its tests are skipped. Install a JDK (17 or newer) and Maven."
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return found


def _pinned() -> str:
    """Changes with whatever the runtime is made of."""
    digest = hashlib.sha256((SOURCES / "pom.xml").read_bytes())
    for path in sorted(EXTENSIONS.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _fetch(maven: str, folder: Path) -> bool:
    return _run(
        [
            maven,
            "--batch-mode",
            "--quiet",
            "--file",
            str(SOURCES / "pom.xml"),
            COPY_DEPENDENCIES,
            f"-DoutputDirectory={folder / 'lib'}",
        ]
    )


def _compile(javac: str, folder: Path) -> bool:
    for source in sorted(EXTENSIONS.iterdir()):
        target = folder / "extensions" / source.name
        shutil.copytree(source / "META-INF", target / "META-INF", dirs_exist_ok=True)
        files = [str(path) for path in source.glob("*.java")]
        jars = str(folder / "lib" / "*")
        if not _run([javac, "-proc:none", "-nowarn", "-cp", jars, "-d", str(target), *files]):
            return False
    return True


def _run(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, timeout=BUILD_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


if __name__ == "__main__":
    sys.exit(0 if built() else "the EDC runtime cannot be built here")
