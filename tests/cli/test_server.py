"""`oncecast serve`: the settings it is started with, and what keeps it from starting."""

from __future__ import annotations

import errno
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.brokers import BUILDERS
from oncecast.server.config.file import NEW_FILE
from oncecast.server.guest import Hosting
from oncecast.server.settings import DEFAULT_BROKER, Settings
from tests.cli.conftest import (
    call,
    complaint,
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the server by one that notes its settings, and raises or returns the list's first item."""
    notes: list[Any] = []

    def fake_run(settings: Settings, read: Callable[[], Settings], hosting: Hosting | None) -> int:
        assert (settings.app is None) == (hosting is None)
        assert settings == read()
        outcome = notes.pop(0) if notes else 0
        notes.append(settings)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, int)
        return outcome

    module = types.ModuleType("oncecast.server.run")
    monkeypatch.setattr(module, "run", fake_run, raising=False)
    monkeypatch.setitem(sys.modules, "oncecast.server.run", module)
    return notes


def test_serve_hands_over_the_settings(run: list[Any]) -> None:
    """Flags, variables and file are merged; the server's exit code is the command's."""
    run.append(3)
    Path("s.toml").write_text("port = 1\nworkers = 1\n[limits]\nhead_seconds = 2")
    flags = ["--port", "0", "--host", "0.0.0.0", "--public", "--dev", "--broker", "memory://", "--config", "s.toml"]
    flags += ["--origin", "https://a", "--origin", "https://b", "--tls-cert", "c", "--tls-key", "k"]
    flags += ["--allowed-host", "a.example", "--allowed-host", "*.b.example"]
    result = call("serve", *flags, ONCECAST_LIMITS__URL_BYTES="9999")
    (settings,) = run
    assert (3, "") == (result.exit_code, result.stderr)
    assert (0, "0.0.0.0", True, True) == (settings.port, settings.host, settings.public, settings.dev)
    assert (("https://a", "https://b"), ("c",), ("k",)) == (settings.origins, settings.tls_cert, settings.tls_key)
    assert ("a.example", "*.b.example") == settings.hosts
    assert (2.0, 9999) == (settings.limits.head_seconds, settings.limits.url_bytes)


def test_serve_reads_the_same_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was found in the working directory is read at SIGHUP too; its removal is an error then."""
    Path("oncecast.toml").write_text("port = 1")
    ports: list[int] = []

    def fake_run(settings: Settings, read: Callable[[], Settings], hosting: Hosting | None) -> int:
        assert (settings.app is None) == (hosting is None)
        Path("oncecast.toml").write_text("port = 2")
        ports.extend((settings.port, read().port))
        Path("oncecast.toml").unlink()
        with pytest.raises(ConfigurationError, match=r"^oncecast\.toml: cannot be read: No such file"):
            read()
        return 0

    module = types.ModuleType("oncecast.server.run")
    monkeypatch.setattr(module, "run", fake_run, raising=False)
    monkeypatch.setitem(sys.modules, "oncecast.server.run", module)
    assert 0 == call("serve").exit_code
    assert [1, 2] == ports


def test_serve_defaults(run: list[Any]) -> None:
    """Without a flag the default settings hold."""
    assert 0 == call("serve").exit_code
    assert [Settings(broker=DEFAULT_BROKER)] == run


@pytest.mark.parametrize(
    "error, expected",
    [
        (
            OSError(errno.EADDRINUSE, "in use"),
            "port 8000 on 127.0.0.1 is in use: stop what listens there or choose another with --port",
        ),
        (
            OSError(errno.EACCES, "denied"),
            "port 8000 on 127.0.0.1 is not open to this user: choose one above 1023 with --port",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "no"),
            "127.0.0.1 is not an address of this machine: choose another with --host",
        ),
        (socket.gaierror(-2, "no"), "127.0.0.1 is not an address of this machine: choose another with --host"),
        (OSError(errno.ENOENT, "No such file", "c.pem"), "the server can't start: c.pem: No such file"),
        (OSError("odd"), "the server can't start: odd"),
        (ConfigurationError("c.pem: is no certificate"), "c.pem: is no certificate"),
    ],
)
def test_serve_that_can_not_start(run: list[Any], error: Exception, expected: str) -> None:
    """What keeps the server from its port is one line that says what to do."""
    run.append(error)
    assert expected == complaint(call("serve"), 2)


@pytest.mark.parametrize(
    "flags, toml, expected",
    [
        ([], "prot = 1", "oncecast.toml: prot is not a setting; did you mean port?"),
        (
            ["--broker", "ftp://h"],
            "",
            "--broker: not a broker's URL: use one of "
            + ", ".join(f"{name}://" for name in BUILDERS)
            + ", as in sqlite:///oncecast.db",
        ),
        (["--config", "absent"], "", f"absent: cannot be read: No such file or directory; {NEW_FILE}"),
    ],
)
def test_serve_with_wrong_settings(run: list[Any], flags: list[str], toml: str, expected: str) -> None:
    """A mistake in the settings is one line, and no server is started."""
    Path("oncecast.toml").write_text(toml)
    assert expected == complaint(call("serve", *flags), 2)
    assert [] == run


@pytest.mark.parametrize("command", [["serve"], ["config", "check"], ["config", "show"]], ids=" ".join)
def test_what_is_not_used_is_a_warning(run: list[Any], command: list[str]) -> None:
    """In a namespace with a service named oncecast the server starts, and one line says what is ignored."""
    result = call(*command, ONCECAST_PORT="tcp://10.0.0.1:8000", ONCECAST_SERVICE_HOST="10.0.0.1\x1b")
    assert 0 == result.exit_code
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "Warning: environment: ONCECAST_PORT, ONCECAST_SERVICE_HOST: ignored, as Kubernetes or Docker"
    )


def test_serve_overrides_a_wrong_variable(run: list[Any]) -> None:
    """A flag's variable is not judged, beyond a warning."""
    result = call("serve", "--port", "9", ONCECAST_PORT="eighty")
    assert (0, 9) == (result.exit_code, run[0].port)
    assert result.stderr.endswith('not "eighty"; ignored, as --port overrides it\n')
