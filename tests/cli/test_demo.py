"""`oncecast demo`: the list, wrong calls, and an example that runs until a signal."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from oncecast.cli import demo
from tests.cli.conftest import SECONDS, call, complaint
from tests.package_rig import ROOT

NAMES = sorted(server.parent.name for server in (ROOT / "examples").glob("*/server.py"))


def test_the_list() -> None:
    """Without a name, each example stands on a line with what it is."""
    lines = call("demo").stdout.splitlines()
    assert NAMES == [line.split()[0] for line in lines]
    assert [] == [line for line in lines if not re.fullmatch(r"[a-z]+ +[A-Z].+\.", line)]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_complete_and_short(name: str) -> None:
    """An example has its page, its README and its test, and a server part that is written to be read."""
    folder = ROOT / "examples" / name
    assert [] == [
        each
        for each in (folder / "page" / "index.html", folder / "README.md", ROOT / f"tests/examples/test_{name}.py")
        if not each.is_file()
    ]
    assert len((folder / "server.py").read_text("utf-8").splitlines()) < 80
    assert f"[{name}](../../examples/{name}/README.md)" in (ROOT / "docs/how-to/examples.md").read_text("utf-8")


def test_an_unknown_name() -> None:
    """The names are given."""
    assert f"there is no example 'gossip': give one of {', '.join(NAMES)}" == complaint(call("demo", "gossip"), 2)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    found = importlib.util.find_spec

    def without(name: str) -> ModuleSpec | None:
        return None if name == "starlette" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert "the examples need starlette: pip install 'oncecast[demo]'" == complaint(call("demo", "chat"), 1)


def test_a_package_that_only_one_example_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed when the example is imported."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "server.py").write_text("from . import words")
    (tmp_path / "odd" / "words.py").write_text("import no_such_package")
    monkeypatch.setattr(demo, "PLACES", (tmp_path,))
    monkeypatch.delitem(sys.modules, demo.PACKAGE, raising=False)
    expected = "the examples need no_such_package: pip install 'oncecast[demo]'"
    assert expected == complaint(call("demo", "odd", "--port", "0"), 1)


def test_a_port_that_is_in_use() -> None:
    """Another one is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = complaint(call("demo", "chat", "--port", str(port)), 2)
    expected = (
        f"can't listen on 127.0.0.1:{port}: address already in use: give another --port, 0 for any, or another --host"
    )
    assert expected == line


def test_without_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was made without them says where they are."""
    monkeypatch.setattr(demo, "PLACES", (tmp_path,))
    assert "the examples are not in this package: install a wheel, or run this in a clone" == complaint(call("demo"), 1)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_run(end: signal.Signals) -> None:
    """It says where the page is, serves it and the client, and a signal ends it in good order, with an open stream."""
    command = [sys.executable, "-m", "oncecast", "demo", "chat", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(
                r"chat is listening on \S+\. Open (http://127\.0\.0\.1:\d+/) in two windows\. Ctrl-C ends it\.\n", line
            )
            assert found is not None, line
            for path in ("", "shared/style.css", "rt/oncecast.js"):
                with urllib.request.urlopen(found[1] + path, timeout=SECONDS) as answer:
                    assert 200 == answer.status
            stream = urllib.request.Request(
                found[1] + "rt/v1/channels/room.lobby", headers={"Accept": "text/event-stream"}
            )
            with urllib.request.urlopen(stream, timeout=SECONDS) as opened:
                assert opened.readline()
                process.send_signal(end)
                opened.read()
            assert (0, "") == (process.wait(SECONDS), process.stderr.read())
        finally:
            process.kill()
