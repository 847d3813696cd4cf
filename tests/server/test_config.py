"""Settings: each source, their order, and the one line that each mistake gets."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server import config
from oncecast.server.config import DEFAULT_BROKER, ChannelRule, Limits, Retention, Settings


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


@pytest.mark.parametrize("text", ["auto", "Auto", "1"])
def test_workers_are_a_number_or_a_word(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """`auto`, or a number, in each source; anything else is told what it may be."""
    monkeypatch.setattr(config, "worker_count", lambda workers: 1)
    expected = 1 if text == "1" else "auto"
    assert expected == load(None, {"ONCECAST_WORKERS": text}).settings.workers
    assert expected == load(None, {}, {"workers": text}).settings.workers
    assert expected == load(f"workers = {json.dumps(expected)}").settings.workers
    shape = 'must be an integer from 1 to 256, or "auto", not'
    assert f"environment: ONCECAST_WORKERS {shape} 257" == mistake(None, {"ONCECAST_WORKERS": "257"})
    assert f'command line: --workers {shape} "two"' == mistake(None, {}, {"workers": "two"})
    assert f'oncecast.toml: workers {shape} "1"' == mistake('workers = "1"')


def test_given_file(tmp_path: Path) -> None:
    """`--config FILE` is read instead of the working directory's file."""
    Path("oncecast.toml").write_text("port = 1")
    other = tmp_path / "other.toml"
    other.write_text("workers = 1")
    loaded = config.load(file=other, environ={}, flags={})
    assert (8000, other) == (loaded.settings.port, loaded.file)
    assert str(other) == loaded.sources["workers"]


def test_channels() -> None:
    """Per-channel tables are read by pattern, and the sources name them."""
    loaded = load('[channels."ticker.*"]\nmessages = 1\nlag = "latest"\n[channels.news]\nseconds = 60')
    assert {
        "ticker.*": ChannelRule(messages=1, lag="latest"),
        "news": ChannelRule(seconds=60.0),
    } == loaded.settings.channels
    assert "oncecast.toml" == loaded.sources['channels."ticker.*".lag']


@pytest.mark.parametrize(
    "channel, expected",
    [
        ("other", ChannelRule(messages=7, seconds=70.0)),
        ("a.b", ChannelRule(messages=1, seconds=70.0)),
        ("a.b.c", ChannelRule(messages=7, seconds=2.0, lag="latest")),
        ("a.b.c.d", ChannelRule(messages=7, seconds=70.0)),
    ],
)
def test_rule_for(channel: str, expected: ChannelRule) -> None:
    """The exact name wins over prefixes, the longest prefix over shorter ones, and [retention] fills the rest."""
    loaded = load(
        "[retention]\nmessages = 7\nseconds = 70\n"
        '[channels."a.*"]\nmessages = 1\n[channels."a.b.*"]\nseconds = 2\nlag = "latest"\n[channels."a.b.c.d"]\n'
    )
    assert expected == config.rule_for(loaded.settings, channel)


def test_rule_for_every_channel() -> None:
    """The pattern * fits every name, and loses against any other that fits."""
    loaded = load('[channels."*"]\nlag = "disconnect"\n[channels."x*"]\nlag = "latest"')
    assert ["disconnect", "latest"] == [config.rule_for(loaded.settings, name).lag for name in ("y", "x")]


@pytest.mark.parametrize(
    "configured, files, expected", [(0, 1024, 960), (100, 1024, 100), (5000, 1024, 960), (0, 8, 1)]
)
def test_connection_ceiling(configured: int, files: int, expected: int) -> None:
    """Connections stay below the limit on open files, whatever is configured."""
    assert expected == config.connection_ceiling(Limits(connections=configured), files)


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
        ("[channels]\nx = 1", 'oncecast.toml: [channels.x] is a table: write [channels."name"] above its settings'),
        (
            '[channels."*x"]',
            'oncecast.toml: [channels."*x"] is neither a channel name nor a prefix that ends in *',
        ),
        (
            '[channels."a b*"]',
            'oncecast.toml: [channels."a b*"] is neither a channel name nor a prefix that ends in *',
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
    assert "absent.toml: cannot be read: No such file or directory" == str(caught.value)


def test_file_that_is_not_text() -> None:
    """Bytes that are not UTF-8 are said to be no TOML."""
    Path("oncecast.toml").write_bytes(b"\xff")
    assert mistake().startswith("oncecast.toml: is not TOML: ")


def test_a_directory_in_the_files_place() -> None:
    """A directory of the file's name is a mistake that is told, as a file that can't be read is."""
    Path("oncecast.toml").mkdir()
    assert "oncecast.toml: cannot be read: Is a directory" == mistake()


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("ONCECAST_PROT", "1", "ONCECAST_PROT is not a setting; did you mean ONCECAST_PORT?"),
        (
            "ONCECAST_LIMITS__MESSAGE_BYTE",
            "1",
            "ONCECAST_LIMITS__MESSAGE_BYTE is not a setting; did you mean ONCECAST_LIMITS__MESSAGE_BYTES?",
        ),
        ("ONCECAST_ZZZZZZZZZZZZ", "1", "ONCECAST_ZZZZZZZZZZZZ is not a setting"),
        ("ONCECAST_FOO", "1", "ONCECAST_FOO is not a setting"),
        (
            "ONCECAST_CHANNELS__NEWS__LAG",
            "latest",
            "ONCECAST_CHANNELS__NEWS__LAG is not a setting: channels have theirs in the file only",
        ),
        ("ONCECAST_PORT", "eighty", 'ONCECAST_PORT must be an integer from 0 to 65535, not "eighty"'),
        ("ONCECAST_PORT", "", 'ONCECAST_PORT must be an integer from 0 to 65535, not ""'),
        ("ONCECAST_DEV", "maybe", 'ONCECAST_DEV must be true or false, not "maybe"'),
        (
            "ONCECAST_LIMITS__HEAD_SECONDS",
            "nan",
            "ONCECAST_LIMITS__HEAD_SECONDS must be a number from 0.1 to 600, not NaN",
        ),
    ],
)
def test_mistake_in_environment(name: str, value: str, expected: str) -> None:
    """Each mistake in a variable is one line that names it."""
    assert f"environment: {expected}" == mistake(environ={name: value})


@pytest.mark.parametrize(
    "text, expected", [("yes", True), ("On", True), ("1", True), ("TRUE", True), ("0", False), ("no", False)]
)
def test_words_for_true_and_false(text: str, expected: bool) -> None:
    """Variables take the usual words for true and false."""
    assert expected == load(environ={"ONCECAST_DEV": text}).settings.dev


def test_lists_in_variables() -> None:
    """A variable holds a list with commas; origins become what a browser sends."""
    loaded = load(environ={"ONCECAST_ORIGINS": "https://A.example:443, http://b:8080,http://[::1]:80,*, app://x"})
    assert ("https://a.example", "http://b:8080", "http://[::1]", "*", "app://x") == loaded.settings.origins


@pytest.mark.parametrize("origin", ["https://a/", "a.example", "http://a:999999", "http://a b", "null"])
def test_mistake_in_origin(origin: str) -> None:
    """An origin that no browser would send is refused, since it would never match."""
    expected = f'command line: --origin: "{origin}" is not an origin: write scheme://host[:port] with no path, or "*"'
    assert expected == mistake(flags={"origins": (origin,)})


def test_mistake_in_flag() -> None:
    """A flag's range is checked like any other."""
    expected = "command line: --port must be an integer from 0 to 65535, not 70000"
    assert expected == mistake(flags={"port": 70000})


@pytest.mark.parametrize(
    "toml, environ, flags, expected",
    [
        (
            'tls_cert = "c"',
            {},
            {},
            "oncecast.toml: tls_cert: TLS needs tls_cert and tls_key, and tls_key is not set: set both or neither",
        ),
        (
            "",
            {"ONCECAST_TLS_KEY": "k"},
            {},
            "ONCECAST_TLS_KEY: TLS needs tls_cert and tls_key, and tls_cert is not set: set both or neither",
        ),
        (
            "",
            {},
            {"host": "0.0.0.0"},
            "--host: binding to all interfaces lets anyone publish who can reach it; give --public if that is meant",
        ),
        (
            "host = '10.0.0.7'",
            {},
            {},
            "oncecast.toml: host: binding to 10.0.0.7 lets anyone publish who can reach it;"
            " give --public if that is meant",
        ),
        (
            "",
            {},
            {"broker": "redis://:secret@h"},
            "--broker: redis:// is not in this version; use sqlite:///oncecast.db or memory://",
        ),
        (
            "broker = 'mysql://:secret@h'",
            {},
            {},
            "oncecast.toml: broker: not a broker URL that is known; use sqlite:///FILE or memory://"
            " (redis://, kafka://, amqp://, nats:// are not in this version)",
        ),
        (
            "workers = 4\ndev = true",
            {},
            {},
            "oncecast.toml: workers: 4 processes can't share memory://; use sqlite:///oncecast.db, or workers = 1",
        ),
    ],
)
def test_contradictions(toml: str, environ: dict[str, str], flags: dict[str, object], expected: str) -> None:
    """Settings that can't hold together are refused with the source and the cure, and without a broker's password."""
    assert expected == mistake(toml, environ, flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"host": "0.0.0.0", "public": True},
        {"host": "0.0.0.0", "dev": True},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.8.8.8"},
        {"tls_cert": "c", "tls_key": "k"},
    ],
)
def test_what_does_not_contradict(flags: dict[str, object]) -> None:
    """What is asked for outright, and what only this machine reaches, is let through."""
    assert flags == {key: getattr(load(flags=flags).settings, key) for key in flags}


def test_example_file_is_the_defaults() -> None:
    """The example sets nothing as it stands, and the defaults once every setting is uncommented."""
    example = config.example_file()
    assert Settings(broker=DEFAULT_BROKER) == load(example).settings
    settings = load(re.sub(r"(?m)^#(?! )", "", example)).settings
    rule = ChannelRule(messages=10_000, seconds=3600.0, lag="resume")
    expected = Settings(broker=DEFAULT_BROKER, tls_cert="cert.pem", tls_key="key.pem", channels={"ticker.*": rule})
    assert expected == settings


def test_what_is_tried_out_leaves_no_file() -> None:
    """In development the broker is in memory, unless another is named."""
    assert "memory://" == load("dev = true").settings.broker
    assert "sqlite:///a.db" == load("dev = true", {"ONCECAST_BROKER": "sqlite:///a.db"}).settings.broker


def test_example_file_explains_every_key() -> None:
    """Each setting in the example stands below a line that explains it."""
    lines = config.example_file().splitlines()
    settings = [n for n, line in enumerate(lines) if re.match("#[a-z_]+ = ", line)]
    assert len(load().sources) + 3 == len(settings)
    assert [] == [lines[n] for n in settings if not re.fullmatch(r"# [A-Z].+\.", lines[n - 1])]


def test_to_toml_round_trip() -> None:
    """What is written reads back to the same settings."""
    settings = Settings(
        host="::1",
        origins=("https://a.example",),
        tls_cert='we"ird\\\x7f\x01é.pem',
        tls_key="k",
        limits=Limits(wait_seconds=0.5),
        retention=Retention(messages=5),
        channels={"a.*": ChannelRule(seconds=1.5), "b": ChannelRule(lag="latest")},
    )
    text = config.to_toml(settings)
    assert settings == load(text).settings
    assert {"limits", "retention", "channels"} <= set(tomllib.loads(text))
