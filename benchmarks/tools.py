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
from collections.abc import Mapping, Sequence
from pathlib import Path

from .base import BenchError

__all__ = ["compiled"]

PROGRAMS = ("sink", "floor", "load")
TLS_PROGRAM = "sink-tls"  # needs OpenSSL's headers, so it is compiled only where it is used
HEADERS = ("common.h", "tls.h")
COMPILERS = ("cc", "gcc", "clang")
SOURCES = Path(__file__).parent
COMPILE_SECONDS = 60.0


def compiled(environ: Mapping[str, str], *, tls: bool = False) -> Path:
    """Return the folder of the programs; compile those first that are missing. Raises `BenchError`."""
    folder = _cache(environ) / f"bench-{_digest()}"
    missing = [name for name in (*PROGRAMS, *((TLS_PROGRAM,) if tls else ())) if not (folder / name).exists()]
    if missing:
        compiler = next(filter(None, (shutil.which(name, path=environ.get("PATH")) for name in COMPILERS)), None)
        if compiler is None:
            raise BenchError("the benchmarks compile C programs: install a C compiler (cc, gcc or clang)")
        _compile(compiler, folder, missing)
    return folder


def _compile(compiler: str, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        handle, made = tempfile.mkstemp(dir=folder)
        os.close(handle)
        argv = [compiler, "-O2", "-o", made, str(SOURCES / f"{name.partition('-')[0]}.c")]
        if name == TLS_PROGRAM:
            argv += ["-DWITH_TLS", "-lssl", "-lcrypto"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMPILE_SECONDS)  # noqa: S603 - no shell
        if done.returncode:
            Path(made).unlink()
            cure = "install OpenSSL's headers (libssl-dev): " if name == TLS_PROGRAM else ""
            raise BenchError(f"{compiler} can't compile {name}: {cure}{done.stderr.strip()[:300]}")
        Path(made).chmod(0o755)
        Path(made).rename(folder / name)  # atomic: another run may do the same now


def _cache(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "oncecast"


def _digest() -> str:
    made = hashlib.sha256()
    for name in (*HEADERS, *(f"{program}.c" for program in PROGRAMS)):
        made.update((SOURCES / name).read_bytes())
    return made.hexdigest()[:16]
