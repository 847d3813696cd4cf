"""The units for systemd: they start what is installed, and fit what the server does when it is told to stop."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from oncecast.cli.server import serve
from oncecast.server.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"


def unit(name: str) -> configparser.ConfigParser:
    """Read a unit; of a key that stands twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((DEPLOY / name).read_text("utf-8"))
    return parser


def test_it_starts_a_command_that_is_there() -> None:
    """The command takes each flag that the unit gives it."""
    program, command, *flags = shlex.split(unit("oncecast.service")["Service"]["ExecStart"])
    assert ("oncecast", "serve") == (Path(program).name, command)
    known = CliRunner().invoke(serve, ["--help"]).output
    assert all(flag in known for flag in flags if flag.startswith("--"))


def test_subscribers_have_their_time_to_leave() -> None:
    """systemd tells the supervisor alone to stop, and waits for longer than a drain takes."""
    service = unit("oncecast.service")["Service"]
    assert "mixed" == service["KillMode"]
    assert float(service["TimeoutStopSec"]) > Settings().limits.drain_seconds
    assert re.fullmatch(r"/\S*kill -HUP \$MAINPID", service["ExecReload"])
    assert "notify" == service["Type"]


def test_the_socket_is_where_the_server_would_listen() -> None:
    """With and without the socket unit it is the same address."""
    settings = Settings()
    assert f"{settings.host}:{settings.port}" == unit("oncecast.socket")["Socket"]["ListenStream"]


@pytest.mark.parametrize("name", ["oncecast.service", "oncecast.socket"])
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    """Each unit is of sections and keys that systemd knows; where it is installed, it is asked."""
    known = {"Unit", "Service", "Socket", "Install"}
    assert known >= set(unit(name).sections())
    program = shutil.which("systemd-analyze")
    if program is not None:
        for file in DEPLOY.iterdir():
            (tmp_path / file.name).write_text(
                file.read_text("utf-8").replace("/opt/oncecast/bin/oncecast", "/bin/true")
            )
        done = subprocess.run([program, "verify", str(tmp_path / name)], capture_output=True, text=True, timeout=60)
        assert (0, "") == (done.returncode, done.stderr)
