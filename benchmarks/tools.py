"""The C programs that make the load. They are compiled into a cache folder when a benchmark first needs them.

A floor or a subscriber in Python would cost more than what is measured. Invariant: the folder's name is a hash of the
sources, so that the programs in it are of these sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .base import BenchError

__all__ = ["compiled"]

PROGRAMS = ("sink", "floor", "load")
HEADER = "common.h"
COMPILERS = ("cc", "gcc", "clang")
SOURCES = Path(__file__).parent
COMPILE_SECONDS = 60.0


def compiled(environ: Mapping[str, str]) -> Path:
    """Return the folder of the programs; compile them first if it is missing. Raises `BenchError`."""
    folder = _cache(environ) / f"bench-{_digest()}"
    if not all((folder / name).exists() for name in PROGRAMS):
        compiler = next(filter(None, (shutil.which(name, path=environ.get("PATH")) for name in COMPILERS)), None)
        if compiler is None:
            raise BenchError("the benchmarks compile C programs: install a C compiler (cc, gcc or clang)")
        _compile(compiler, folder)
    return folder


def _compile(compiler: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        handle, made = tempfile.mkstemp(dir=folder)
        os.close(handle)
        argv = [compiler, "-O2", "-o", made, str(SOURCES / f"{name}.c")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMPILE_SECONDS)  # noqa: S603 - no shell
        if done.returncode:
            Path(made).unlink()
            raise BenchError(f"{compiler} can't compile {name}.c: {done.stderr.strip()[:300]}")
        Path(made).chmod(0o755)
        Path(made).rename(folder / name)  # atomic: another run may do the same now


def _cache(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "oncecast"


def _digest() -> str:
    made = hashlib.sha256()
    for name in (HEADER, *(f"{program}.c" for program in PROGRAMS)):
        made.update((SOURCES / name).read_bytes())
    return made.hexdigest()[:16]
