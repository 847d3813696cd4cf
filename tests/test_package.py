"""What a person gets: the wheel holds all that the package needs and nothing else, and no file names our machines."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import trove_classifiers

from tests.package_rig import OLDEST, ROOT, built, pythons, tree
from tests.test_imports import ALLOWED as ROOMS

# Written so that no pattern matches itself.
HOME = re.compile(rb"(?<![\w.~-])/(?:(?:home|Users)/\w|[r]oot/)")
CHECKOUT = re.compile(re.escape(bytes(ROOT)) + rb"(?![\w.-])")
REGISTRY = re.compile(
    rb"(?:pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|yarnpkg[.]com|debian[.]org|crates[.]io|golang[.]org)"
)
ADDRESS = re.compile(rb"[a-z]+:/[/]|^-(?:i|f)\b|--(?:extra-)?index-url|--find-links", re.MULTILINE)


# What may be in a wheel. A new kind of file is added here, if whoever installs the package needs it.
IN_A_WHEEL = (
    r"oncecast/([a-z0-9_]+/)*[a-z0-9_]+\.py",
    r"oncecast/py\.typed",
    r"oncecast/brokers/redis/lua/[a-z]+\.lua",
    r"oncecast/web/start/[a-z-]+\.(js|css|html|svg)",
    r"oncecast/web/client/([a-z-]+/)?([a-z-]+\.(js|d\.ts)|package\.json|README\.md|LICENSE)",
    r"oncecast/web/oncecast\.js",
    r"oncecast/examples/([a-z]+/)+[A-Za-z_.-]+\.(py|html|js|css|svg|md|toml)",
    r"oncecast-[0-9.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt|licenses/LICENSE)",
)
YJS = "examples/editor/page/yjs.js"  # of no sources: npm's Yjs, bundled
YJS_OF_AN_SDIST = "build/web/yjs.js"
NOT_IN_AN_SDIST = {".ci/run", ".editorconfig", ".gitattributes"}  # of a checkout; a source archive has no CI
MOMENT = 1_700_000_000


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> Iterator[zipfile.ZipFile]:
    """The wheel of this tree, open."""
    with zipfile.ZipFile(wheel_file) as opened:
        yield opened


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this tree."""
    return built("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    """Each file under src/oncecast is in the wheel under the same name."""
    package = ROOT / "src"
    expected = {path.relative_to(package).as_posix() for path in tree() if path.is_relative_to(package)}
    assert "oncecast/py.typed" in expected
    assert set() == expected - set(wheel.namelist())


def test_the_wheel_holds_the_pages(wheel: zipfile.ZipFile) -> None:
    """The server can serve its pages from an installed package: markup, style and script are all there."""
    kinds = {PurePosixPath(name).suffix for name in wheel.namelist() if name.startswith("oncecast/web/")}
    assert {".html", ".css", ".js"} <= kinds


def test_the_wheel_holds_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    """No tests, benchmarks, caches or other top-level names land in somebody's site-packages."""
    names = wheel.namelist()
    assert [] == [name for name in names if not any(re.fullmatch(kind, name) for kind in IN_A_WHEEL)]
    modules = [PurePosixPath(name) for name in names if name.endswith(".py")]
    assert {*ROOMS, "__init__", "examples"} - {""} == {name.parts[1].removesuffix(".py") for name in modules}
    assert [] == [str(name) for name in modules if name.name.startswith(("test_", "conftest"))]


def test_the_wheel_holds_the_bundled_client(wheel: zipfile.ZipFile) -> None:
    """`/oncecast.js` of an installed package is one file without imports."""
    assert b"import" not in wheel.read("oncecast/web/oncecast.js")


def test_an_sdist_holds_what_a_wheel_needs(sdist: Path, tmp_path: Path) -> None:
    """A wheel that is built from the sdist, without npm, has the bundled client, and no environment of a checkout."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not list(unpacked.rglob("node_modules"))
    with zipfile.ZipFile(built("wheel", unpacked, tmp_path)) as wheel:
        assert (unpacked / "build/web/oncecast.js").read_bytes() == wheel.read("oncecast/web/oncecast.js")
        assert (unpacked / YJS_OF_AN_SDIST).read_bytes() == wheel.read(f"oncecast/{YJS}")


def test_the_sdist_holds_the_whole_tree(sdist: Path) -> None:
    """All tracked files are in the sdist, so a packager can run the tests, and has the licence."""
    with tarfile.open(sdist) as archive:
        held = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    expected = {path.relative_to(ROOT).as_posix() for path in tree()} - NOT_IN_AN_SDIST
    assert {"LICENSE", "tests/test_package.py", "Makefile"} <= expected
    assert (set(), set()) == (expected - held, held - expected - {"PKG-INFO", "build/web/oncecast.js", YJS_OF_AN_SDIST})


def test_a_build_is_reproducible(tmp_path: Path) -> None:
    """Two trees that differ in place, time and permissions make the same bytes, dated by SOURCE_DATE_EPOCH."""
    made: list[dict[str, bytes]] = []
    for number, place in enumerate((tmp_path / "one", tmp_path / "elsewhere" / "two")):
        for path in tree():
            copy = place / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            copy.chmod(path.stat().st_mode & (0o777, 0o700)[number])
            os.utime(copy, (1_600_000_000 + number, 1_600_000_000 + number))
        kinds = {kind: built(kind, place, place / "dist", SOURCE_DATE_EPOCH=str(MOMENT)) for kind in ("sdist", "wheel")}
        made.append({kind: path.read_bytes() for kind, path in kinds.items()})
    assert [] == [kind for kind in made[0] if made[0][kind] != made[1][kind]]
    with tarfile.open(kinds["sdist"]) as archive:
        assert {MOMENT} == {member.mtime for member in archive.getmembers()}


def test_a_wheel_without_npm(tmp_path: Path) -> None:
    """From a tree without esbuild a wheel has the modules of the client, and no bundle that may be an old one."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "scripts/hatch_build.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "build/web").mkdir(parents=True)
    (tmp_path / "build/web/oncecast.js").write_text("old")
    (tmp_path / YJS).write_text("old")
    with zipfile.ZipFile(built("wheel", tmp_path, tmp_path)) as wheel:
        assert "oncecast/web/client/index.js" in wheel.namelist()
        assert {"oncecast/web/oncecast.js", f"oncecast/{YJS}"}.isdisjoint(wheel.namelist())


def test_the_wheel_carries_the_licence_and_its_entries(wheel: zipfile.ZipFile) -> None:
    """The licence's text comes along, the metadata names it, and the command and the pytest plugin are declared."""
    contents = {name.partition(".dist-info/")[2]: wheel.read(name) for name in wheel.namelist()}
    assert (ROOT / "LICENSE").read_bytes() == contents["licenses/LICENSE"]
    assert b"License-Expression: Apache-2.0\n" in contents["METADATA"]
    assert b"[console_scripts]\noncecast = oncecast.cli:main\n" in contents["entry_points.txt"]
    assert b"[pytest11]\noncecast = oncecast.testing.plugin\n" in contents["entry_points.txt"]


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    """Each classifier exists, each Python is one that the package is for, and no address is given that is not ours."""
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    classifiers = metadata.get_all("Classifier", [])
    assert set() == set(classifiers) - trove_classifiers.classifiers
    assert metadata["Requires-Python"] == ">=" + ".".join(map(str, OLDEST))
    versions = {each.rpartition(" ")[2] for each in classifiers if re.search(r" :: 3\.\d+$", each)}
    assert pythons().keys() <= versions
    assert "text/markdown" == metadata["Description-Content-Type"]
    assert [] == metadata.get_all("Project-URL", []) + metadata.get_all("Home-page", [])


@pytest.mark.parametrize("pattern", [HOME, CHECKOUT, REGISTRY], ids=["home", "checkout", "registry"])
def test_no_file_is_tied_to_a_machine_or_a_registry(pattern: re.Pattern[bytes]) -> None:
    """No file in the tree names somebody's directories or one index of packages."""
    found = {path.relative_to(ROOT).as_posix(): pattern.findall(path.read_bytes()) for path in tree()}
    assert {} == {name: matches for name, matches in found.items() if matches}


@pytest.mark.parametrize(
    "name",
    [
        "requirements/runtime.lock",
        "requirements/dev.lock",
        "requirements/docs.lock",
        "requirements/fuzz.lock",
        "requirements/release.lock",
        "tests/peers/package-lock.json",
        "scripts/web/package-lock.json",
    ],
)
def test_a_lock_names_no_address(name: str) -> None:
    """A lock says what the files are, by hash; where they come from is the installer's configuration."""
    assert [] == ADDRESS.findall((ROOT / name).read_bytes())


@pytest.mark.parametrize("name", ["runtime", "dev", "docs", "fuzz", "release"])
def test_a_lock_pins_and_hashes_every_line(name: str) -> None:
    """Each package of a lock has one exact version and at least one hash."""
    pins = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8").replace("\\\n", "").splitlines()[1:]
    assert [] == [
        pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", pin)
    ]


def test_the_locks_agree_and_hold_what_the_project_asks_for() -> None:
    """What runs in the tests is what is served, and a dependency that was added without `make lock` is noticed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    pins = {name: locked(name) for name in ("runtime", "dev")}
    assert pins["runtime"].items() <= pins["dev"].items()
    assert set() == names(project["project"]["dependencies"]) - pins["runtime"].keys()
    assert set() == names(project["dependency-groups"]["dev"]) - pins["dev"].keys()
    # The packages of the site and of a release are put beside those of the tests, and change none of them.
    for group in ("docs", "release"):
        beside = locked(group)
        assert {} == {name: pin for name, pin in beside.items() if pins["dev"].get(name, pin) != pin}
        assert set() == names(project["dependency-groups"][group]) - beside.keys()


def locked(name: str) -> dict[str, str]:
    """Name and version of each package in a lock."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    """The packages that requirements name, spelt as the locks spell them."""
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def installed(wheel: zipfile.ZipFile, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command from the wheel, beside installed packages, in an empty directory and without this checkout."""
    wheel.extractall(place / "site")
    paths = [str(place / "site"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"import sys; sys.path += {paths!r}; from oncecast.cli import main; main('oncecast')"
    (place / "empty").mkdir()
    command = [sys.executable, "-S", "-P", "-c", program, *arguments]  # -S: the checkout is on the path by a .pth file
    return subprocess.run(command, cwd=place / "empty", capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [[], ["fanout", "--json"]], ids=str)
def test_bench_of_an_installed_package(wheel: zipfile.ZipFile, tmp_path: Path, arguments: list[str]) -> None:
    """The benchmarks are not in the wheel: one line says where they are, and nothing is measured."""
    ended = installed(wheel, tmp_path, "bench", *arguments)
    expected = "Error: the benchmarks are not in an installed package: clone the repository, and run "
    assert (1, "", f"{expected}.venv/bin/oncecast bench there\n") == (ended.returncode, ended.stdout, ended.stderr)
    assert [] == list((tmp_path / "empty").iterdir())


def test_the_examples_of_an_installed_package(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Each file of the examples is in the wheel, and `oncecast demo` finds them there."""
    expected = {path.relative_to(ROOT).as_posix() for path in tree() if path.is_relative_to(ROOT / "examples")}
    held = {name.removeprefix("oncecast/") for name in wheel.namelist() if name.startswith("oncecast/examples/")}
    assert {*expected, YJS} == held
    ended = installed(wheel, tmp_path, "demo")
    names = [line.split()[0] for line in ended.stdout.splitlines()]
    assert (0, "") == (ended.returncode, ended.stderr)
    assert "chat" in names
    assert sorted(PurePosixPath(name).parent.name for name in expected if name.endswith("/server.py")) == names
    ended = installed(
        wheel, tmp_path / "again", "demo", "chat", "--host", "192.0.2.1"
    )  # an address of nobody: asked for once the example is imported
    assert (2, "Error: can't listen on 192.0.2.1:8000: ") == (ended.returncode, ended.stderr[:39])


def test_the_commands_of_an_installed_package(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """The other commands work from the wheel alone."""
    ended = installed(wheel, tmp_path, "config", "check")
    assert (0, "The settings are valid: all are defaults.\n", "") == (ended.returncode, ended.stdout, ended.stderr)
