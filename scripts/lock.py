"""Regenerate the lock files in `requirements/` from the ranges in `pyproject.toml`.

Owns these files. Each names every package with its exact version and the SHA-256 of every file published for
that version which a supported Python on Linux or macOS could install, so that one lock serves them all. A lock
names no index: where the files come from is pip's configuration, and what they must be is the hash.

Run by `make lock`. To lock another set of packages, add a line to `main`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Only pip's internal modules list the files of a release. The locks pin pip, so its version here is known.
from pip._internal.commands import create_command
from pip._internal.index.collector import parse_links
from pip._internal.models.link import Link
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)  # the oldest Python may need backports; newer ones need no other packages
HEADER = "# Made by `make lock` from pyproject.toml: do not edit.\n"


def main() -> None:
    """Resolve the runtime set first, then the development set around those same versions."""
    if sys.version_info[:2] != OLDEST:
        sys.exit(f"scripts/lock.py: run it with Python {OLDEST[0]}.{OLDEST[1]}, the oldest that is supported.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]
    runtime = [*project["project"]["dependencies"], *project["build-system"]["requires"], *groups["install"]]
    development = [*runtime, *groups["dev"]]
    locked = resolve(runtime, {})
    write(ROOT / "requirements" / "runtime.lock", locked, runtime)
    installed = resolve(development, locked)
    write(ROOT / "requirements" / "dev.lock", installed, development)
    for name in ("docs", "release"):  # into the same .venv as the development set, so with the versions of that
        write(ROOT / "requirements" / f"{name}.lock", resolve(groups[name], installed), groups[name])
    write(ROOT / "requirements" / "fuzz.lock", resolve(groups["fuzz"], locked), groups["fuzz"])


def resolve(requirements: Iterable[str], held: dict[str, str]) -> dict[str, str]:
    """Name and version of all that `requirements` need, keeping to the versions in `held`."""
    with tempfile.TemporaryDirectory() as place:
        constraints, report = Path(place, "constraints.txt"), Path(place, "report.json")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in held.items()), "utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(constraints)]
        subprocess.run([*command, *options, *requirements], check=True, cwd=place)
        chosen = [entry["metadata"] for entry in json.loads(report.read_text("utf-8"))["install"]]
    return {canonicalize_name(entry["name"]): entry["version"] for entry in chosen}


def write(path: Path, locked: dict[str, str], requirements: Iterable[str]) -> None:
    """Write one lock: sorted, so that a change of versions is a short diff."""
    # A requirement of pyproject.toml with a platform condition has the same condition here.
    conditions = {canonicalize_name(r.name): r.marker for r in map(Requirement, requirements) if r.marker}
    finder = package_finder()
    lines = [HEADER]
    for name, version in sorted(locked.items()):
        hashes = sorted(set(published(finder, name, version)))
        if not hashes:
            sys.exit(f"scripts/lock.py: the index lists no file with a hash for {name} {version}.")
        condition = f" ; {conditions[name]}" if name in conditions else ""
        pinned = [f"{name}=={version}{condition}", *(f"--hash=sha256:{digest}" for digest in hashes)]
        lines.append(" \\\n    ".join(pinned) + "\n")
    path.write_text("".join(lines), "utf-8")


def package_finder() -> Any:
    """Return pip's finder of packages, set up as pip's own configuration says."""
    command: Any = create_command("index")
    options, _ = command.parse_args(["versions", "any"])
    return command._build_package_finder(options, command._build_session(options))


def published(finder: Any, name: str, version: str) -> Iterator[str]:
    """Yield the SHA-256 of each file of a release that a supported platform could install."""
    for location in finder.search_scope.get_index_urls_locations(name):
        # A directory on this machine is at best a cache of the index, which other machines do not have.
        page = None if location.startswith("file:") else finder._link_collector.fetch_response(Link(location))
        for link in parse_links(page) if page else ():
            if link.hash_name == "sha256" and link.hash and is_file_of(link.filename, version):
                yield link.hash


def is_file_of(filename: str, version: str) -> bool:
    """Tell whether a file is a release's source, or a wheel that a supported Python on Linux or macOS can use."""
    try:
        return str(parse_sdist_filename(filename)[1]) == version
    except InvalidSdistFilename:
        pass
    try:
        _, found, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return False
    return str(found) == version and any(is_usable(t.interpreter, t.abi, t.platform) for t in tags)


def is_usable(interpreter: str, abi: str, platform: str) -> bool:
    """Tell whether a wheel's tag fits a supported CPython on Linux or macOS."""
    if platform != "any" and "linux" not in platform and "macosx" not in platform:
        return False
    if interpreter.startswith("py3"):
        return True
    if not interpreter.startswith("cp3") or not interpreter[3:].isdigit():
        return False
    return abi == "abi3" or int(interpreter[3:]) >= OLDEST[1]


if __name__ == "__main__":
    main()
