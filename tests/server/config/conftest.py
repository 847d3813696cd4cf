"""What the tests of the settings' sources share: an empty directory, and one call for each outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server import config


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a stray oncecast.toml out of every test."""
    monkeypatch.chdir(tmp_path)


def load(
    toml: str | None = None, environ: dict[str, str] | None = None, flags: dict[str, object] | None = None
) -> config.Loaded:
    """Load with `toml` as the working directory's oncecast.toml."""
    if toml is not None:
        Path("oncecast.toml").write_text(toml)
    return config.load(file=None, environ=environ or {}, flags=flags or {})


def mistake(
    toml: str | None = None, environ: dict[str, str] | None = None, flags: dict[str, object] | None = None
) -> str:
    """Return the text of the ConfigurationError, which must be one line."""
    with pytest.raises(ConfigurationError) as caught:
        load(toml, environ, flags)
    text = str(caught.value)
    assert text.splitlines() == [text]
    return text
