"""From MODULE:NAME to an application, or to one line."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from oncecast.asgi.hosting import application
from oncecast.asgi.hosting.application import find_cast, load_application
from oncecast.asgi.oncecast import Oncecast
from oncecast.errors import ConfigurationError

MODULE = """
class Asgi:
    async def __call__(self, scope, receive, send): ...

async def asgi(scope, receive, send): ...
def wsgi(environ, start_response): ...
def old(scope): ...
def make(): ...
app = Asgi()
class holder:
    app = app
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules, which are forgotten after the test."""
    (tmp_path / "shop_of_test.py").write_text(MODULE)
    (tmp_path / "broken_of_test.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "raising_of_test.py").write_text("raise RuntimeError('no database\\nhere')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("shop_of_test", "broken_of_test", "raising_of_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["app", "asgi", "holder.app"])
def test_an_application_is_found_from_the_working_directory(folder: Path, name: str) -> None:
    """An object, a function, and an attribute of an attribute."""
    assert callable(load_application(f"shop_of_test:{name}"))


@pytest.mark.parametrize(
    "target, said",
    [
        ("shop_of_test", "give MODULE:NAME"),
        (":app", "give MODULE:NAME"),
        ("no_such_of_test:app", "there is no module no_such_of_test"),
        ("no_such_of_test.main:app", "there is no module no_such_of_test"),
        ("broken_of_test:app", "broken_of_test can't be imported: No module named 'nothing_of_this_name'"),
        ("raising_of_test:app", "raising_of_test can't be imported: RuntimeError: no database here"),
        ("shop_of_test:none", "the module shop_of_test has no none"),
        ("shop_of_test:number", "no ASGI application, as an int can't be called"),
        ("shop_of_test:Asgi", "but a class: name an object of it"),
        ("shop_of_test:wsgi", "as those of WSGI do"),
        ("shop_of_test:old", "as those of ASGI 2 do"),
        ("shop_of_test:make", "a function that makes one"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, target: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """The line says what to give; where the application's own code has failed, the log has its traceback."""
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigurationError) as raised:
        load_application(target)
    text = str(raised.value)
    assert said in text
    assert "\n" not in text
    assert text.startswith(f"--app {target}: ")
    assert ("can't be imported" in text) == any(record.exc_info for record in caplog.records)


def test_a_missing_uvicorn_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn the line says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'oncecast\[app\]'"):
        load_application("shop_of_test:app")


def test_the_one_oncecast_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, one, or a refusal of several."""
    found: list[Oncecast] = []
    monkeypatch.setattr(application, "living_embeddings", lambda: list(found))
    assert find_cast() is None
    found.append(Oncecast("memory://"))
    assert found[0] is find_cast()
    found.append(Oncecast("memory://"))
    with pytest.raises(ConfigurationError, match="2 Oncecast objects"):
        find_cast()
