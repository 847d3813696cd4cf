"""The page about tests of applications: its examples are a project whose tests pass and whose types are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_rig import ROOT, blocks, type_checker

PAGE = ROOT / "docs" / "how-to" / "test-your-app.md"
FLAGS = ("-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
HTTPX2 = "ignore:Using `httpx` with `starlette.testclient`"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the page."""
    for block in blocks(PAGE):
        if block.mark.startswith("file "):
            (tmp_path / block.mark.removeprefix("file ")).write_text(block.text)
    return tmp_path


def run(project: Path, *command: str) -> str:
    """Run a command in the project, to its good end."""
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=200)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return ended.stdout


def test_the_examples_pass(project: Path) -> None:
    """Each test of the page passes, and no file of a log is left behind."""
    assert "10 passed" in run(project, sys.executable, "-m", "pytest", *FLAGS, "-W", HTTPX2)
    assert [] == list(project.glob("*.db*"))


def test_the_examples_pass_the_type_checker(project: Path) -> None:
    """The examples of the page pass mypy in strict mode."""
    assert "Success" in run(project, *type_checker("."))
