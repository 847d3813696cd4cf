"""`scripts/release.py`: what it holds against a release, and that it uploads only when it is told to."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
VERSION = "1.2.3"
CHANGES = "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-01-31\n\n- A line.\n\n## 1.2.2 - 2026-01-01\n"


@pytest.fixture
def release() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit that can be released, which is what the script looks at."""
    place = tmp_path / "tree"
    client = place / release.CLIENT
    client.mkdir(parents=True)
    (client / "package.json").write_text(f'{{"version": "{VERSION}"}}', "utf-8")
    (place / "src/oncecast/__init__.py").write_text(f'__version__ = "{VERSION}"\n', "utf-8")
    (place / "CHANGELOG.md").write_text(CHANGES, "utf-8")
    git(place, "init", "--quiet")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "All")
    git(place, "tag", f"v{VERSION}")
    monkeypatch.setattr(release, "ROOT", place)
    return place


@pytest.fixture
def ran(tree: Path, release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The programs that the script has run; the build is put aside."""
    files = [tree / "dist" / name for name in ("a.tar.gz", "a.tgz", "a.whl")]
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(release, "built", lambda tree, version: files)
    monkeypatch.setattr(release, "run", lambda *command, cwd: commands.append(command))
    return commands


def git(tree: Path, *arguments: str) -> None:
    """Run git there, as somebody who needs no settings of this machine."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=tree, check=True, timeout=60)


def test_this_tree_agrees_on_its_version(release: ModuleType) -> None:
    """The Python package and the package for npm have one version."""
    assert 1 == len(set(release.versions(ROOT).values()))


def test_a_tree_that_can_be_released(tree: Path, release: ModuleType) -> None:
    """Nothing is held against a tagged commit whose versions and changelog agree."""
    assert ([], []) == (release.faults(tree), release.unrecorded(tree, VERSION))


@pytest.mark.parametrize(
    "path, old, new, said",
    [
        ("src/oncecast/web/client/package.json", "1.2.3", "1.2.2", "package.json has version 1.2.2"),
        ("CHANGELOG.md", "## 1.2.3 - 2026-01-31", "## 1.2.30 - 2026-01-31", "has no section `## 1.2.3 -"),
        ("CHANGELOG.md", "## 1.2.3 - 2026-01-31", "## 1.2.3", "has no section `## 1.2.3 -"),
        ("CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n- Late.\n", "lines under Unreleased"),
    ],
)
def test_what_disagrees_is_named(tree: Path, release: ModuleType, path: str, old: str, new: str, said: str) -> None:
    """A version or a section that differs is one fault, which names the place."""
    file = tree / path
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    (fault,) = release.faults(tree)
    assert said in fault


def test_what_git_holds_against_it(tree: Path, release: ModuleType) -> None:
    """A change that is not committed, and a missing tag, are named."""
    (tree / "new").touch()
    git(tree, "tag", "--delete", f"v{VERSION}")
    assert ["not committed", "no tag v1.2.3"] == [
        words
        for words, fault in zip(("not committed", "no tag v1.2.3"), release.unrecorded(tree, VERSION), strict=True)
        if words in fault
    ]


def test_without_the_flag_nothing_is_uploaded(
    release: ModuleType, ran: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A try says which two commands would run, and runs neither."""
    assert (0, []) == (release.main([]), ran)
    assert 2 == capsys.readouterr().out.count("With --upload this would run: ")


def test_with_the_flag_the_files_are_uploaded(tree: Path, release: ModuleType, ran: list[tuple[str, ...]]) -> None:
    """Twine gets the sdist and the wheel, npm its tarball."""
    dist = tree / "dist"
    assert 0 == release.main(["--upload"])
    assert [
        (sys.executable, "-m", "twine", "upload", "--non-interactive", str(dist / "a.tar.gz"), str(dist / "a.whl")),
        ("npm", "publish", str(dist / "a.tgz"), "--access", "public"),
    ] == ran


@pytest.mark.parametrize("arguments, expected", [(["--upload"], 1), ([], 1), (["--uplaod"], 2)])
def test_nothing_is_uploaded_while_something_is_wrong(
    tree: Path, release: ModuleType, ran: list[tuple[str, ...]], arguments: list[str], expected: int
) -> None:
    """A fault, or a misspelt flag, ends in an exit code and no upload."""
    (tree / "CHANGELOG.md").write_text("# Changelog\n", "utf-8")
    assert (expected, []) == (release.main(arguments), ran)
