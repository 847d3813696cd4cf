"""Build a release from a clean clone of this commit, and try it: the sdist, the wheel and npm's tarball.

Owns `dist/`, which has the three files afterwards. Invariant: nothing is uploaded without `--upload`, nor while one
check fails; the files that are uploaded are those that were tried. Run by `make release`.

To have one more place agree on the version, add it to `versions`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = Path("src/oncecast/web/client")
SECONDS = 600  # for one program; the slowest downloads packages
BUILD = "from hatchling.build import build_sdist, build_wheel; build_sdist('dist'); build_wheel('dist')"


def main(arguments: list[str]) -> int:
    """Build, try, and say what is in the way of a release; upload if that was asked for and nothing is."""
    if arguments not in ([], ["--upload"]):
        print("Usage: scripts/release.py [--upload]", file=sys.stderr)
        return 2
    version = versions(ROOT)["src/oncecast/__init__.py"]
    found = [*faults(ROOT), *unrecorded(ROOT, version)]
    if found and arguments:
        return told(found)  # before the minute that the build takes
    files = built(ROOT, version)
    commands = uploads(files)
    print(f"Built and tried: {', '.join(path.relative_to(ROOT).as_posix() for path in files)}")
    if found:
        return told(found)
    for command in commands:
        if arguments:
            run(*command, cwd=ROOT)
        else:
            print(f"With --upload this would run: {' '.join(command)}")
    return 0


def told(found: list[str]) -> int:
    """Print what is in the way."""
    print("No release yet, and nothing is uploaded:", *found, sep="\n- ", file=sys.stderr)
    return 1


def versions(tree: Path) -> dict[str, str]:
    """The version that each place has; the first is where hatchling reads it."""
    module = "src/oncecast/__init__.py"
    (version,) = re.findall(r'^__version__ = "(.+)"$', (tree / module).read_text("utf-8"), re.MULTILINE)
    package = CLIENT / "package.json"
    return {module: version, package.as_posix(): json.loads((tree / package).read_text("utf-8"))["version"]}


def faults(tree: Path) -> list[str]:
    """What the files of a tree say against a release of it, each with what to do."""
    (module, version), *others = versions(tree).items()
    found = [
        f"{place} has version {other} and {module} has {version}: make them agree."
        for place, other in others
        if other != version
    ]
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (tree / "CHANGELOG.md").read_text("utf-8"), re.M | re.S))
    if not any(re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", title) for title in sections):
        found.append(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD`: add it.")
    if sections.get("Unreleased", "").strip():
        found.append(f"CHANGELOG.md has lines under Unreleased: move them to the section of {version}.")
    return found


def unrecorded(tree: Path, version: str) -> list[str]:
    """What git says against a release: changes that are not committed, or no tag on this commit."""
    found = []
    if said("git", "status", "--porcelain", cwd=tree):
        found.append("There are changes that are not committed, and no clone has them: commit or remove them.")
    if f"v{version}" not in said("git", "tag", "--points-at", "HEAD", cwd=tree).split():
        found.append(f"This commit has no tag v{version}. Once all else is right: git tag -a v{version}")
    return found


def built(tree: Path, version: str) -> list[Path]:
    """Build the three files from a clone of the commit, try them, and put them into `dist/`."""
    dist = tree / "dist"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        clone = place / "clone"
        run("git", "clone", "--quiet", "--no-hardlinks", str(tree), str(clone), cwd=place)
        run("npm", "ci", "--silent", "--prefix", "scripts/web", cwd=clone)
        run(sys.executable, "-c", BUILD, cwd=clone)
        run("npm", "pack", "--silent", f"--pack-destination={clone / 'dist'}", cwd=clone / CLIENT)
        files = sorted((clone / "dist").iterdir())
        named = {f"oncecast-{version}.tar.gz", f"oncecast-{version}-py3-none-any.whl", f"oncecast-{version}.tgz"}
        if {path.name for path in files} != named:
            sys.exit(f"scripts/release.py: expected {sorted(named)}, and the builds made {[p.name for p in files]}.")
        python = [str(path) for path in files if path.suffix != ".tgz"]
        run(sys.executable, "-m", "twine", "check", "--strict", *python, cwd=place)
        try_wheel(next(path for path in files if path.suffix == ".whl"), version, place)
        shutil.rmtree(dist, ignore_errors=True)
        shutil.copytree(clone / "dist", dist)
    return [dist / path.name for path in files]


def try_wheel(wheel: Path, version: str, place: Path) -> None:
    """Install a wheel with what it needs into an environment that has nothing else, and ask it for its version."""
    venv.create(place / "empty", with_pip=True)
    run("empty/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", str(wheel), cwd=place)
    answer = said("empty/bin/oncecast", "--version", cwd=place)
    if version not in answer.split():
        sys.exit(f"scripts/release.py: the installed command says {answer!r}, and not {version}.")


def uploads(files: list[Path]) -> list[list[str]]:
    """The commands that upload, which take the credentials from twine's and npm's own settings."""
    python = [str(path) for path in files if path.suffix != ".tgz"]
    (tarball,) = (str(path) for path in files if path.suffix == ".tgz")
    return [
        [sys.executable, "-m", "twine", "upload", "--non-interactive", *python],
        ["npm", "publish", tarball, "--access", "public"],
    ]


def run(*command: str, cwd: Path) -> None:
    """Run a program, and end with its failure."""
    try:
        subprocess.run(command, cwd=cwd, check=True, timeout=SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"scripts/release.py: {error} Nothing more was done.")


def said(*command: str, cwd: Path) -> str:
    """What a program prints."""
    return subprocess.run(
        command, cwd=cwd, check=True, timeout=SECONDS, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
