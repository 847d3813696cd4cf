"""The settings file: what is read, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server import config
from oncecast.server.config.file import NEW_FILE, PATTERN_HELP
from oncecast.server.settings import ChannelRule
from tests.server.config.conftest import load, mistake


@pytest.mark.parametrize(
    "toml, expected",
    [
        ("prot = 1", "oncecast.toml: prot is not a setting; did you mean port?"),
        ("zzz = 1", "oncecast.toml: zzz is not a setting"),
        (
            "[limits]\nmessage_byte = 1",
            "oncecast.toml: [limits] message_byte is not a setting; did you mean message_bytes?",
        ),
        ("message_bytes = 1", "oncecast.toml: message_bytes is not a setting; did you mean the one in [limits]?"),
        ("[limit]\nx = 1", "oncecast.toml: [limit] is not a table of settings; did you mean [limits]?"),
        ('["a b"]', 'oncecast.toml: ["a b"] is not a table of settings'),
        ("limits = 1", "oncecast.toml: [limits] is a table: put its settings below a line [limits]"),
        ("port = 'x'", 'oncecast.toml: port must be an integer from 0 to 65535, not "x"'),
        ("port = 65536", "oncecast.toml: port must be an integer from 0 to 65535, not 65536"),
        ("port = true", "oncecast.toml: port must be an integer from 0 to 65535, not true"),
        ("dev = 1", "oncecast.toml: dev must be true or false, not 1"),
        ("host = ''", 'oncecast.toml: host must be a string that is not empty, not ""'),
        ("origins = 'x'", 'oncecast.toml: origins must be a list of strings, not "x"'),
        (
            "[limits]\nhead_seconds = nan",
            "oncecast.toml: [limits] head_seconds must be a number from 0.1 to 600, not NaN",
        ),
        (
            "[limits]\nwait_seconds = inf",
            "oncecast.toml: [limits] wait_seconds must be a number from 0 to 3600, not Infinity",
        ),
        (
            "[limits]\nwait_seconds = 1979-05-27",
            'oncecast.toml: [limits] wait_seconds must be a number from 0 to 3600, not "1979-05-27"',
        ),
        (f"port = '{'x' * 200}'", f'oncecast.toml: port must be an integer from 0 to 65535, not "{"x" * 59}…'),
        (
            "[channels.x]\nlag = 'skip'",
            'oncecast.toml: [channels.x] lag must be one of "resume", "latest", "disconnect", not "skip"',
        ),
        (
            "[channels.x]\nmesages = 1",
            "oncecast.toml: [channels.x] mesages is not a setting; did you mean messages?",
        ),
        (
            "[channels.chat.lobby]\nsubscribe = 'public'",
            "oncecast.toml: [channels.chat] lobby is not a setting: write quotes around a name with dots, as in"
            ' [channels."chat.lobby"]',
        ),
        ("[channels]\nx = 1", 'oncecast.toml: [channels.x] is a table: write [channels."name"] above its settings'),
        (
            '[channels."*x"]',
            'oncecast.toml: [channels."*x"] is no pattern of channels: ' + PATTERN_HELP,
        ),
        (
            '[channels."a b*"]',
            'oncecast.toml: [channels."a b*"] is no pattern of channels: ' + PATTERN_HELP,
        ),
        ("port =", "oncecast.toml: is not TOML: Invalid value (at end of document)"),
    ],
)
def test_mistake_in_file(toml: str, expected: str) -> None:
    """Each mistake in the file is one line that names the file, the table and the key, and the cure if it is known."""
    assert expected == mistake(toml)


def test_file_that_is_not_there() -> None:
    """A file that was asked for must be there."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(file=Path("absent.toml"), environ={}, flags={})
    assert f"absent.toml: cannot be read: No such file or directory; {NEW_FILE}" == str(caught.value)


def test_file_that_is_not_text() -> None:
    """Bytes that are not UTF-8 are said to be no TOML."""
    Path("oncecast.toml").write_bytes(b"\xff")
    assert mistake().startswith("oncecast.toml: is not TOML: ")


def test_a_directory_in_the_files_place() -> None:
    """A directory of the file's name is an error, as a file that can't be read is."""
    Path("oncecast.toml").mkdir()
    assert "oncecast.toml: cannot be read: Is a directory" == mistake()


def test_channels() -> None:
    """Per-channel tables are read by pattern, and the sources name them."""
    loaded = load('[channels."ticker.*"]\nmessages = 1\nlag = "latest"\n[channels.news]\nseconds = 60')
    assert {
        "ticker.*": ChannelRule(messages=1, lag="latest"),
        "news": ChannelRule(seconds=60.0),
    } == loaded.settings.channels
    assert "oncecast.toml" == loaded.sources['channels."ticker.*".lag']


def test_given_file(tmp_path: Path) -> None:
    """`--config FILE` is read instead of the working directory's file."""
    Path("oncecast.toml").write_text("port = 1")
    other = tmp_path / "other.toml"
    other.write_text("workers = 1")
    loaded = config.load(file=other, environ={}, flags={})
    assert (8000, other) == (loaded.settings.port, loaded.file)
    assert str(other) == loaded.sources["workers"]


@pytest.mark.parametrize(
    "toml, expected",
    [
        (f"port = {'9' * 5000}", "is not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        (f"port = 0x{'f' * 5000}", "port must be an integer from 0 to 65535, not a number of 6021 digits"),
        ("port = 1e400", "port must be an integer from 0 to 65535, not Infinity"),
        (f"origins = {'[' * 5000}", "is not TOML: its arrays or tables are nested too deep"),
        (f"origins = '{'x' * 1024 * 1024}'", "is larger than 1048576 bytes: is it a settings file?"),
    ],
    ids=range(5),
)
def test_absurd_files(toml: str, expected: str) -> None:
    """Numbers, depths and sizes that the parser of TOML can't take are one line too."""
    assert mistake(toml).startswith(f"oncecast.toml: {expected}")


def test_a_device_as_the_file() -> None:
    """Of a file without an end no more is read than a settings file may have."""
    with pytest.raises(ConfigurationError, match="/dev/zero: is larger than 1048576 bytes"):
        config.load(file=Path("/dev/zero"), environ={}, flags={})


def test_a_secret_in_the_file() -> None:
    """A file of settings is shown, copied and committed: the error says where a secret belongs, and repeats nothing."""
    expected = (
        "oncecast.toml: [auth] secret: a secret does not belong into the settings: put it into a file of its own and "
        "name that in secret_file, or into the variable ONCECAST_AUTH__SECRET"
    )
    assert expected == mistake("[auth]\nsecret = 'abc'")
