"""What the tests of the package share: the files of this tree, a build of it, and the Pythons to try it on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["OLDEST", "ROOT", "built", "pythons", "tree"]

ROOT = Path(__file__).parent.parent
BUILD = "import sys, hatchling.build as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
OLDEST = (3, 11)  # as `requires-python` says
SECONDS = 60


def built(kind: str, tree: Path, place: Path, **environ: str) -> Path:
    """Build a `wheel` or an `sdist` of a tree by the backend that pyproject.toml names; return its path."""
    command = [sys.executable, "-c", BUILD, kind, str(place)]
    ended = subprocess.run(
        command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS, env={**os.environ, **environ}
    )
    return place / ended.stdout.splitlines()[-1]


def tree() -> list[Path]:
    """Every file of the tree that is tracked, or would be by `git add`."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        found = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, timeout=SECONDS).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this tree is not a git checkout")
    paths = [ROOT / name for name in found.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def pythons() -> dict[str, Path]:
    """A Python of each version that the package is for, as `3.12`: this one first, then those of PATH and of pyenv."""
    found: dict[tuple[int, int], Path] = {}
    for path in [Path(sys.executable), *_candidates()]:
        version = _version(path)
        if version is not None and version >= OLDEST:
            found.setdefault(version, path)
    return {f"{major}.{minor}": path for (major, minor), path in sorted(found.items())}


def _candidates() -> Iterator[Path]:
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    folders = [folder for folder in folders if folder.name != "shims"]  # pyenv's, each a slow script
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    folders += [folder / "bin" for folder in (sorted(pyenv.iterdir()) if pyenv.is_dir() else [])]
    for folder in folders:
        for path in sorted(folder.glob("python3.[0-9]*")) if folder.is_dir() else []:
            if re.fullmatch(r"python3\.\d+", path.name) and shutil.which(path):
                yield path


def _version(path: Path) -> tuple[int, int] | None:
    """Return `(3, 12)`, or None where this starts no CPython that can make an environment."""
    script = "import sys, venv; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        ended = subprocess.run(
            [path, "-c", script], capture_output=True, text=True, check=False, timeout=SECONDS, cwd=path.parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match ended.stdout.split():
        case ["cpython", major, minor] if ended.returncode == 0:
            return int(major), int(minor)
        case _:
            return None
