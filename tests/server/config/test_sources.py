"""The sources of settings, their order, and what an overridden mistake becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.config import Sources
from oncecast.server.settings import DEFAULT_BROKER, Limits, Settings
from tests.server.config.conftest import load


def test_defaults() -> None:
    """With no source at all, every value is the default and says so; what is served is kept in a file."""
    loaded = load()
    assert Settings(broker=DEFAULT_BROKER) == loaded.settings
    assert loaded.file is None
    assert {"default"} == set(loaded.sources.values())
    assert {"port", "limits.message_bytes", "retention.seconds"} <= set(loaded.sources)


def test_precedence() -> None:
    """A flag wins over a variable, a variable over the file, the file over the default; sources say which."""
    loaded = load(
        "port = 1\nworkers = 1\n[limits]\nhead_seconds = 3\nheader_count = 50",
        {"ONCECAST_PORT": "2", "ONCECAST_LIMITS__HEAD_SECONDS": "4.5", "HOME": "/", "ONCECAST_URL": "http://x"},
        {"port": 3, "host": None, "origins": ()},
    )
    expected = Settings(port=3, broker=DEFAULT_BROKER, limits=Limits(head_seconds=4.5, header_count=50))
    assert expected == loaded.settings
    assert ["--port", "oncecast.toml", "ONCECAST_LIMITS__HEAD_SECONDS", "oncecast.toml", "default"] == [
        loaded.sources[key] for key in ("port", "workers", "limits.head_seconds", "limits.header_count", "host")
    ]
    assert Path("oncecast.toml") == loaded.file


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_was_read_has_to_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """Without it the defaults would hold in its place; one that comes later is read, and has to stay too."""
    monkeypatch.chdir(tmp_path)
    file = Path("oncecast.toml")
    sources = Sources(file=file if named else None, environ={}, flags={})
    if not named:
        assert 8000 == sources.load().settings.port
    for port in (1, 2):
        file.write_text(f"port = {port}")
        assert port == sources.load().settings.port
        file.unlink()
        with pytest.raises(ConfigurationError, match=r"oncecast\.toml: cannot be read: No such file"):
            sources.load()


def test_a_flag_is_called_by_its_own_name() -> None:
    """`--allowed-host` gives an item of `hosts`, as `--origin` does of `origins`."""
    loaded = load(flags={"hosts": ("a.example",), "origins": ("https://a.example",)})
    assert ("--allowed-host", "--origin") == (loaded.sources["hosts"], loaded.sources["origins"])
    with pytest.raises(ConfigurationError, match=r"^command line: --allowed-host: "):
        load(flags={"hosts": ("a b",)})


def test_what_is_tried_out_leaves_no_file() -> None:
    """In development the broker is in memory, unless another is named."""
    assert "memory://" == load("dev = true").settings.broker
    assert "sqlite:///a.db" == load("dev = true", {"ONCECAST_BROKER": "sqlite:///a.db"}).settings.broker


def test_an_overridden_mistake_is_a_warning() -> None:
    """A value that a stronger source overrides is not used, so what is wrong with it is only a warning."""
    loaded = load("port = 'x'\nworkers = 0\n", {"ONCECAST_PORT": "eighty", "ONCECAST_WORKERS": "1"}, {"port": 7})
    assert (7, 1) == (loaded.settings.port, loaded.settings.workers)
    assert (
        'environment: ONCECAST_PORT must be an integer from 0 to 65535, not "eighty"; ignored, as --port overrides it',
        'oncecast.toml: port must be an integer from 0 to 65535, not "x"; ignored, as --port overrides it',
        'oncecast.toml: workers must be an integer from 1 to 256, or "auto", not 0; ignored, as ONCECAST_WORKERS'
        " overrides it",
    ) == loaded.warnings


def test_an_override_that_agrees_is_no_warning() -> None:
    """Overriding a good value says nothing."""
    assert () == load("port = 1", {"ONCECAST_PORT": "2"}, {"port": 3}).warnings
