"""The page's modules without a browser: Node reads each, and runs the tests of those that need no document."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import oncecast

HERE = Path(__file__).parent
WEB = Path(oncecast.__file__).parent / "web" / "start"
MODULES = sorted(path.name for path in WEB.glob("*.js"))
SECONDS = 60


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the modules, with the file that tells Node that they are modules."""
    copy = tmp_path_factory.mktemp("web")
    (copy / "package.json").write_text('{"type": "module"}')
    for module in (*MODULES, "modules.test.mjs"):
        shutil.copy((WEB if module in MODULES else HERE) / module, copy)
    return copy


def node(*arguments: str, cwd: Path) -> str:
    """Run Node; return what it printed where it failed, else nothing."""
    program = shutil.which("node")
    if program is None:
        pytest.fail("there is no node on the PATH: run scripts/system-packages, or apt-get install nodejs")
    ended = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=SECONDS)
    return ended.stdout + ended.stderr if ended.returncode else ""


@pytest.mark.parametrize("module", MODULES)
def test_module_is_javascript(modules: Path, module: str) -> None:
    """Node can read the module."""
    assert "" == node("--check", module, cwd=modules)


def test_books_and_polling(modules: Path) -> None:
    """The tests in JavaScript pass."""
    assert "" == node("--test", "modules.test.mjs", cwd=modules)
