"""A password in a broker's URL is found, and warned of where other users of the machine can see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from oncecast.cli.base import masked
from oncecast.cli.server import serve
from oncecast.cli.settings import config


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://ann@h?password_file=/run/p", "redis://ann@h?password_file=/run/p"),
        ("redis://ann:se@cret@h:6379/0?prefix=x", "redis://ann:...@h:6379/0?prefix=x"),
        ("nats://secret@h", "nats://...@h"),
        ("redis://h?sentinel_password=secret&prefix=x", "redis://h?sentinel_password=...&prefix=x"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    """Text that is no secret stays."""
    assert shown == masked(url)


def test_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve --broker` warns of it, and repeats it nowhere; the variable is no reason to."""
    monkeypatch.setattr("oncecast.server.run.run", lambda settings, read: 0)
    url = "redis://ann:hunter2@h:6379/0"
    monkeypatch.chdir(tmp_path)
    served = CliRunner().invoke(serve, ["--broker", url])
    quiet = CliRunner().invoke(serve, [], env={"ONCECAST_BROKER": url})
    assert "Warning: --broker has a password" in served.output
    assert "" == quiet.output
    assert "hunter2" not in served.output


def test_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` hides a password among the options too."""
    monkeypatch.chdir(tmp_path)
    url = "redis+sentinel://h/m?sentinel_password=hunter2&prefix=x"
    shown = CliRunner().invoke(config, ["show"], env={"ONCECAST_BROKER": url})
    assert 'broker = "redis+sentinel://h/m?sentinel_password=***&prefix=x"' in shown.output
