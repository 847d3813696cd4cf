"""The command line: what each command prints and exits with, in process, and as a process with signals and pipes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, cast

import click
import pytest
from click.testing import CliRunner, Result

from oncecast import AsyncClient, LinkState, Moved, StateChanged, __version__
from oncecast.cli import base, interrupt, listener, publisher
from oncecast.cli.commands import commands
from oncecast.client.ladder import Ladder
from oncecast.client.transports import TRANSPORTS
from oncecast.errors import ConfigurationError
from oncecast.server.brokers import BUILDERS
from oncecast.server.config import example_file
from oncecast.server.settings import DEFAULT_BROKER, Settings

COMMANDS = [[], ["serve"], ["pub"], ["sub"], ["config"], ["config", "check"], ["config", "show"], ["config", "init"]]
SECONDS = 20  # for a process to do what it is about to do anyway


class Fake(ThreadingHTTPServer):
    """A server that acknowledges what is posted, and answers each GET with the next of `streams`, then holds it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.streams: list[bytes] = []
        self.asked: list[str] = []
        self.status = 201
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_POST(self) -> None:
        """Acknowledge with ids e-1, e-2 …, or refuse with the status."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        ok = {"id": f"e-{len(self.server.posted)}", "durability": "memory"}
        bad = {"error": {"code": "forbidden", "message": "not\x1b you"}}
        answer = json.dumps(ok if self.server.status == 201 else bad).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        """Send a stream and hold it until the test is over, unless another is to follow."""
        self.server.asked.append(self.path)
        self.close_connection = True
        if not self.server.streams:
            self.send_error(403)
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + self.server.streams.pop(0))
        if not self.server.streams:
            self.server.over.wait(SECONDS)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A fake server that runs."""
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("ONCECAST_"):
            monkeypatch.delenv(name)


def call(*arguments: str, stdin: bytes | None = None, **environ: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(commands, arguments, input=stdin, env=environ, prog_name="oncecast")


def complaint(result: Result, code: int) -> str:
    """Return the one line of standard error of a command that failed with `code`."""
    assert (code, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines())), result.stderr
    return result.stderr.removeprefix("Error: ").rstrip("\n")


def event(seq: int, **fields: object) -> bytes:
    """Return a message as an event of a stream."""
    message = {"id": f"e-{seq}", "channel": "c", "event": None, "time": 1.5, **fields}
    return f"id: e-{seq}\ndata: {json.dumps(message)}\n\n".encode()


def port_of_nobody() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Help ------------------------------------------------------------------------------------------------------------


def test_version() -> None:
    """The version is the package's."""
    assert f"oncecast {__version__}\n" == call("--version").stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(command: list[str]) -> None:
    """Each help fits a terminal, shows examples, and every example is a call that parses."""
    result = call(*command, "--help")
    assert (0, []) == (result.exit_code, [line for line in result.stdout.splitlines() if len(line) > 100])
    examples = re.findall(r"^ {4}.*?oncecast ([^|&\n]+)", result.stdout, re.MULTILINE)
    assert examples
    for example in examples:
        words = re.findall(r"""'[^']*'|"[^"]*"|\S+""", example)
        arguments = [word.strip("'\"") for word in words]
        group: click.Command = commands
        with click.Context(group) as context:
            while isinstance(group, click.Group):
                _, found, arguments = group.resolve_command(context, arguments)
                assert found is not None
                group = found
            group.make_context("oncecast", arguments)


def test_commands_stand_in_the_order_of_need() -> None:
    """The list of commands begins with the server, and what measures it comes last."""
    names = re.findall(r"^  (\w+)  ", call("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert ["serve", "pub", "sub", "config", "bench"] == names


# serve -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the server by one that notes its settings, and raises or returns the list's first item."""
    notes: list[Any] = []

    def fake_run(settings: Settings, read: Callable[[], Settings]) -> int:
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
    result = call("serve", *flags, ONCECAST_LIMITS__URL_BYTES="9999")
    (settings,) = run
    assert (3, "") == (result.exit_code, result.stderr)
    assert (0, "0.0.0.0", True, True) == (settings.port, settings.host, settings.public, settings.dev)
    assert (("https://a", "https://b"), "c", "k") == (settings.origins, settings.tls_cert, settings.tls_key)
    assert (2.0, 9999) == (settings.limits.head_seconds, settings.limits.url_bytes)


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
        (["--config", "absent"], "", "absent: cannot be read: No such file or directory"),
    ],
)
def test_serve_with_wrong_settings(run: list[Any], flags: list[str], toml: str, expected: str) -> None:
    """A mistake in the settings is one line, and no server is started."""
    Path("oncecast.toml").write_text(toml)
    assert expected == complaint(call("serve", *flags), 2)
    assert [] == run


# config ----------------------------------------------------------------------------------------------------------


def test_config_init() -> None:
    """It writes the example, never over a file unless told to, and - prints it."""
    assert "Wrote oncecast.toml. Uncomment what you want to change" in call("config", "init").stdout
    assert example_file() == Path("oncecast.toml").read_text() == call("config", "init", "-").stdout
    Path("oncecast.toml").write_text("port = 1")
    expected = "oncecast.toml is there already: give --force to replace it"
    assert expected == complaint(call("config", "init"), 2)
    assert 0 == call("config", "init", "--force").exit_code
    assert example_file() == Path("oncecast.toml").read_text()
    assert "no/x.toml can't be written: No such file or directory" == complaint(call("config", "init", "no/x.toml"), 2)


def test_config_check() -> None:
    """It says where settings come from, or names the mistake."""
    assert "The settings are valid: all are defaults.\n" == call("config", "check").stdout
    Path("oncecast.toml").write_text("port = 1\ndev = true")
    result = call("config", "check", ONCECAST_HOST="localhost")
    expected = "The settings are valid: 2 from oncecast.toml, 1 from ONCECAST_HOST, the rest are defaults.\n"
    assert expected == result.stdout
    expected = "environment: ONCECAST_HOTS is not a setting; did you mean ONCECAST_HOST?"
    assert expected == complaint(call("config", "check", ONCECAST_HOTS="x"), 2)


def test_config_check_of_a_file() -> None:
    """The file is an argument, or --config's, but not two files."""
    Path("a.toml").write_text("port = 1")
    expected = "The settings are valid: 1 from a.toml, the rest are defaults.\n"
    for arguments in (["a.toml"], ["--config", "a.toml"], ["a.toml", "--config", "a.toml"]):
        assert expected == call("config", "check", *arguments).stdout
    expected = "FILE is a.toml and --config is b.toml: give one of them"
    assert expected == complaint(call("config", "check", "a.toml", "--config", "b.toml"), 2)
    assert "b.toml: cannot be read: No such file or directory" == complaint(call("config", "check", "b.toml"), 2)


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


def test_config_show() -> None:
    """It prints what holds, as TOML, with the source of each."""
    Path("oncecast.toml").write_text('[channels."a.*"]\nmessages = 1\n')
    lines = call("config", "show", ONCECAST_PORT="9").stdout.splitlines()
    assert 'host = "127.0.0.1"  # default' in lines
    assert "port = 9  # ONCECAST_PORT" in lines
    assert ['[channels."a.*"]', "messages = 1  # oncecast.toml", 'lag = "resume"  # default'] == lines[-3:]


# pub -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, kind, expected, content_type",
    [
        ('{"a": 1}', "auto", b'{"a": 1}', "application/json"),
        ("hello", "auto", b"hello", "text/plain; charset=utf-8"),
        ("1", "text", b"1", "text/plain; charset=utf-8"),
        ("1", "json", b"1", "application/json"),
        ("é", "binary", "é".encode(), "application/octet-stream"),
        ("", "auto", b"", "text/plain; charset=utf-8"),
    ],
)
def test_pub(fake: Fake, data: str, kind: str, expected: bytes, content_type: str) -> None:
    """An argument is published as what it is, or is said to be; its id is printed."""
    result = call("pub", "news", data, "--type", kind, "--event", "x", "--key", "k", "--server", fake.url)
    assert ("e-1\n", "", 0) == (result.stdout, result.stderr, result.exit_code)
    ((path, headers, body),) = fake.posted
    assert ("/v1/channels/news", expected, content_type) == (path, body, headers["content-type"])
    assert ("x", "k") == (headers["oncecast-event"], headers["idempotency-key"])


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_pub_lines(fake: Fake, arguments: list[str]) -> None:
    """Each line of standard input is a message of its own; --json prints the acknowledgements."""
    stdin = b"one\r\n\n{}\nla\xffst"
    result = call("pub", "c", *arguments, "--json", stdin=stdin, ONCECAST_URL=fake.url)
    assert [f"e-{n}" for n in (1, 2, 3)] == [json.loads(line)["id"] for line in result.stdout.splitlines()]
    assert [b"one", b"{}", b"la\xffst"] == [body for _, _, body in fake.posted]
    assert 3 == len({headers["idempotency-key"] for _, headers, _ in fake.posted})


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_pub_reads_descriptors(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lines are read from a pipe and from a file, whatever pieces they come in, with and without a last line end."""
    text = b"a\nb\r\n\nc"
    if kind == "pipe":
        fd, write = os.pipe()
        os.write(write, text)
        os.close(write)
    else:
        (tmp_path / "lines").write_bytes(text)
        fd = os.open(tmp_path / "lines", os.O_RDONLY)

    async def read() -> list[bytes]:
        return [line async for line in publisher._lines()]

    with open(fd) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [b"a", b"b", b"c"] == asyncio.run(read())


def test_pub_bounds_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line that no server would take is not kept in memory."""
    monkeypatch.setattr(publisher, "LINE_BYTES", 10)
    (tmp_path / "lines").write_bytes(bytes(11))

    async def read() -> list[bytes]:
        return [line async for line in publisher._lines()]

    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(click.ClickException, match="longer than 10 bytes"):
            asyncio.run(read())


def test_pub_explains_itself_at_a_terminal(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would type the lines is told how to end."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _self: True, raising=False)
    result = call("pub", "c", stdin=b"x\n", ONCECAST_URL=fake.url)
    assert "Each line you type is published; end with Ctrl-D.\n" == result.stderr


def test_pub_without_a_server() -> None:
    """Where no server is, it says how to start one."""
    url = f"http://127.0.0.1:{port_of_nobody()}"
    expected = f"no server answers at {url}: start one with `make serve` or `oncecast serve --dev`, or give --server"
    assert expected == complaint(call("pub", "c", "x", "--server", url), 1)


def test_pub_refused(fake: Fake) -> None:
    """A refusal is one line, and nothing in it reaches the terminal as a command."""
    fake.status = 403
    assert "not\\x1b you" == complaint(call("pub", "c", "x", ONCECAST_URL=fake.url), 1)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["a b", "x"], "'a b' is not a channel name"),
        (["c", "{", "--type", "json"], "The data is not JSON"),
        (["c", "-", "--key", "k"], "--key is one message's"),
        (["c", "x", "--event", "a\nb"], "An event name is"),
        (["c", "x", "--server", "ftp://h"], "'ftp://h' is not a server's URL: write http://host:port"),
    ],
)
def test_pub_called_wrongly(arguments: list[str], expected: str) -> None:
    """A wrong call exits with 2 before anything is sent."""
    assert complaint(call("pub", *arguments), 2).startswith(expected)


# sub -------------------------------------------------------------------------------------------------------------


def listen(fake: Fake, *arguments: str) -> Result:
    """Call `sub` on the fake server over SSE."""
    return call("sub", "--transport", "sse", "--server", fake.url, *arguments)


def test_sub_prints_data(fake: Fake) -> None:
    """A line is the data: text without what a terminal would obey, JSON on one line, binary in base64."""
    fake.streams = [
        b"id: e-0\n\n"
        + event(1, data="hé\tllo")
        + event(2, data="a\nb\x1b[31m\u0085\u2028")
        + event(3, data={"a": [1, None]})
        + event(4, data64={"base64": "/wA="})
    ]
    result = listen(fake, "c", "--count", "4")
    assert ["hé\tllo", r"a\nb\x1b[31m\x85\u2028", '{"a": [1, null]}', "/wA=", ""] == result.stdout.split("\n")
    assert ("listening to c over sse\n", 0) == (result.stderr, result.exit_code)
    assert ["/v1/channels/c?after=latest&envelope=1"] == fake.asked


def test_sub_names_the_channel_among_several(fake: Fake) -> None:
    """With several channels each line begins with its channel."""
    fake.streams = [event(1, data="x") + event(2, data="y", channel="d")]
    assert "c: x\nd: y\n" == listen(fake, "c", "d", "--count", "2").stdout


def test_sub_json(fake: Fake) -> None:
    """With --json a line is the whole message."""
    fake.streams = [event(1, data="x", event="tick") + event(2, data64={"base64": "/wA="})]
    assert [
        {"id": "e-1", "channel": "c", "data": "x", "event": "tick", "time": 1.5},
        {"id": "e-2", "channel": "c", "data64": {"base64": "/wA="}, "event": None, "time": 1.5},
    ] == [json.loads(line) for line in listen(fake, "c", "--json", "--count", "2").stdout.splitlines()]


def test_sub_tells_of_gaps_and_breaks(fake: Fake) -> None:
    """Gaps and reconnects are a line each on standard error, and the messages go on."""
    gap = b'event: gap\ndata: {"channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": null, '
    gap += b'"cursor": "e-4"}\n\n'
    fake.streams = [gap + event(5, data="x"), event(5, data="x") + event(6, data="y")]
    result = listen(fake, "c", "--count", "2", "--after", "e-0")
    assert "x\ny\n" == result.stdout
    gap_line, first, lost, again = sorted(result.stderr.splitlines())
    assert "gap in c: missed e-1 to an unknown end (expired)" == gap_line
    assert ("listening again over sse", "listening to c over sse") == (first, lost)
    assert "the server ended the stream; trying again until it is back" == again
    assert ["after=e-0", "after=e-5"] == [re.findall("after=[^&]*", path)[0] for path in fake.asked]


class FakeClient:
    """Takes callbacks as a client does, and calls them."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], object]] = {}

    def on(self, kind: str, callback: Callable[[Any], object]) -> None:
        """Keep the callback."""
        self.callbacks[kind] = callback

    def state(self, after: LinkState, reason: str) -> None:
        """Tell of a state."""
        self.callbacks["state"](StateChanged(LinkState.CONNECTING, after, reason))


@pytest.fixture
def client() -> FakeClient:
    """A client of which `sub` tells."""
    client = FakeClient()
    listener._tell_of(cast(AsyncClient, client), ["c", "d", "c"])
    return client


def test_sub_tells_a_reason_once(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Attempts that fail alike are one line, until it listens again; what the user need not know is none."""
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.CONNECTING, "sse")
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.LISTENING, "sse")
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.WAITING, "not\x1b there")
    client.state(LinkState.LISTENING, "sse")
    client.state(LinkState.CLOSED, "")
    assert [
        "down; trying again until it is back",
        "listening to c, d over sse",
        "down; trying again until it is back",
        "not\\x1b there; trying again until it is back",
        "listening again over sse",
    ] == capsys.readouterr().err.splitlines()


def test_sub_tells_of_transports(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Each move from one transport to another is a line with its reason."""
    ladder = Ladder(list(TRANSPORTS), proof=10.0, on_move=cast(Callable[[Moved], None], client.callbacks["transport"]))
    ladder.unsuited("websocket", "the server answers 400")
    for _ in range(2):
        ladder.broke("sse", None, "cut.")
    ladder.works("websocket")
    assert [
        "websocket does not work here: the server answers 400; turning to another transport",
        "sse is cut again and again: cut; turning to another transport",
        "websocket gets through again; turning to it",
    ] == capsys.readouterr().err.splitlines()


def test_sub_goes_on_where_nobody_takes_what_it_tells(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error on a full disk costs no message."""
    echo = click.echo

    def failing(message: object = None, *, err: bool = False, **options: Any) -> None:
        if err:
            raise OSError(errno.ENOSPC, "No space left")
        echo(message, **options)

    monkeypatch.setattr(click, "echo", failing)
    fake.streams = [event(1, data="x")]
    result = listen(fake, "c", "--count", "1")
    assert (0, "x\n", "") == (result.exit_code, result.stdout, result.stderr)


def test_sub_falls_back(fake: Fake) -> None:
    """Where the handshake of a WebSocket is answered with a stream, it turns to the stream."""
    fake.streams = [b"", event(1, data="x")]
    result = call("sub", "--server", fake.url, "c", "--count", "1")
    turning, listening = result.stderr.splitlines()
    assert re.fullmatch("websocket does not work here: .*; turning to another transport", turning)
    assert ("listening to c over sse", "x\n", 0) == (listening, result.stdout, result.exit_code)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--last", "3"], r"last=3&"),
        (["--since", "1700000000.5"], r"since=1700000000\.500&"),
        (["--since", "2h"], r"since=1\d{9}\.\d{3}&"),
        (["--after", "earliest"], r"after=earliest&"),
    ],
)
def test_sub_starts(fake: Fake, arguments: list[str], expected: str) -> None:
    """Where to begin is passed on, an age as a moment."""
    fake.streams = [event(1, data="x")]
    listen(fake, "c", "--count", "1", *arguments)
    assert re.search(expected, fake.asked[0])


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--last", "1", "--after", "e-1"], "give one of --after, --last and --since"),
        (["--after", "a b"], "'a b' is not a cursor: give a message's id, or latest, or earliest"),
        (["--since", "soon"], "'soon' is not a time: give Unix seconds, or an age such as 90s, 10m, 2h or 1d"),
    ],
)
def test_sub_called_wrongly(fake: Fake, arguments: list[str], expected: str) -> None:
    """A start that is none is refused before anything is asked."""
    assert expected == complaint(listen(fake, "c", *arguments), 2)


def test_sub_refused(fake: Fake) -> None:
    """A refusal ends it with one line."""
    assert "the server answers 403" == complaint(listen(fake, "c"), 1)


SAME = ["1e999", "-0.0", "1.10", '{"k":1,"k":2}', "123456789012345678901234567890.5", f"1{'0' * 5000}"]


@pytest.mark.parametrize("data", SAME, ids=range(len(SAME)))
def test_sub_keeps_every_digit(fake: Fake, data: str) -> None:
    """JSON is printed as it was published, also where no value of Python's can hold it."""
    start = '{"id":"e-1","channel":"c","data":'
    fake.streams = [f'data: {start}{data},"event":null,"time":1.5}}\n\n'.encode()] * 2
    assert f'{start}{data},"event":null,"time":1.5}}\n' == listen(fake, "c", "--json", "--count", "1").stdout
    assert f"{data}\n" == listen(fake, "c", "--count", "1").stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_sub_prints_json_on_one_line(fake: Fake, flags: list[str]) -> None:
    """Line ends between tokens become spaces, and what a terminal obeys in a string is escaped: the same value."""
    value = {"a": "\x7f\x9b31m\u2028\u2029\x85", "é": [1, "\x1b"]}
    data = json.dumps(value, ensure_ascii=False, indent=1)
    head, tail = b'{"id": "e-1", "channel": "c", "time": 1, "data": ', b"}"
    lines = (head + data.encode() + tail).split(b"\n")
    fake.streams = [b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"]
    (line,) = listen(fake, "c", "--count", "1", *flags).stdout.splitlines()
    assert None is re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
    assert value == (json.loads(line)["data"] if flags else json.loads(line))


# Output ----------------------------------------------------------------------------------------------------------


OUTPUTS = [["sub", "c", "--transport", "sse"], ["pub", "c", "x"], ["config", "show"], ["config", "check"], ["--help"]]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left")])
def test_output_that_is_not_taken(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: OSError
) -> None:
    """A reader who has left ends each command quietly, a full disk with one line, and the last flush does no harm."""
    replaced: list[int] = []
    echo = click.echo

    def failing(message: object = None, *, err: bool = False, **options: Any) -> None:
        if not err and "file" not in options:
            raise error
        echo(message, err=err, **options)

    monkeypatch.setattr(click, "echo", failing)
    monkeypatch.setattr(click.core, "echo", failing)
    monkeypatch.setattr(click.decorators, "echo", failing)
    monkeypatch.setattr(os, "dup2", lambda _new, old: replaced.append(old))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.fileno", lambda _self: 1, raising=False)
    fake.streams = [event(1, data="x")]
    result = call(*arguments, ONCECAST_URL=fake.url)
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("listening")]
    if isinstance(error, BrokenPipeError):
        assert (0, [], [1]) == (result.exit_code, complaints, replaced)
    else:
        assert (1, 1, [1]) == (result.exit_code, len(complaints), replaced)
        assert re.fullmatch(r"Error: .*No space left", complaints[0])


def test_an_interrupt_is_no_traceback() -> None:
    """Ctrl-C wherever a command does not wait for it ends with the shell's code for it."""
    with pytest.raises(SystemExit) as ended, base.quietly():
        raise KeyboardInterrupt
    assert 130 == ended.value.code


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """What a shell runs in the background is not ended by Ctrl-C while it starts either."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.ending_at_once():
            signal.raise_signal(signal.SIGINT)
            assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


# Processes -------------------------------------------------------------------------------------------------------


def start(
    fake: Fake, *arguments: str, module: str = "oncecast", stdout: IO[bytes] | None = None, first: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the command as a process with pipes, or its results to `stdout`; modules in `first` hide others."""
    pipe = subprocess.PIPE
    path = os.pathsep.join([*([str(first)] if first else []), *sys.path])
    environ = {**os.environ, "ONCECAST_URL": fake.url, "PYTHONPATH": path}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=stdout or pipe, stderr=pipe, env=environ)


def pipe_of(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe of a process, which `start` has always given it."""
    assert stream is not None
    return stream


@pytest.mark.parametrize("module", ["oncecast", "oncecast.cli"])
def test_pub_process_publishes_each_line_as_it_comes(fake: Fake, module: str) -> None:
    """A line is acknowledged while standard input is still open."""
    with start(fake, "pub", "c", module=module) as process:
        for n in (1, 2):
            pipe_of(process.stdin).write(b"line\n")
            pipe_of(process.stdin).flush()
            assert f"e-{n}\n".encode() == pipe_of(process.stdout).readline()
        out, err = process.communicate(timeout=SECONDS)
    assert (b"", b"", 0) == (out, err, process.returncode)


def test_pub_process_is_interrupted(fake: Fake) -> None:
    """Ctrl-C while it waits for a line ends it at once, with the shell's code for it and no traceback."""
    with start(fake, "pub", "c") as process:
        pipe_of(process.stdin).write(b"line\n")
        pipe_of(process.stdin).flush()
        pipe_of(process.stdout).readline()
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(SECONDS)
        assert b"" == pipe_of(process.stderr).read()


def test_sub_process_is_interrupted(fake: Fake) -> None:
    """A message is printed at once, and Ctrl-C ends it cleanly."""
    fake.streams = [event(1, data="x")]
    with start(fake, "sub", "c", "--transport", "sse") as process:
        assert b"x\n" == pipe_of(process.stdout).readline()
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(SECONDS)
        assert b"listening to c over sse\n" == pipe_of(process.stderr).read()


def test_sub_process_is_left_by_its_reader(fake: Fake) -> None:
    """Standard output that is closed, as by head, ends it cleanly."""
    fake.streams = [event(1, data="x"), b"".join(event(n, data="y") for n in range(2, 200))]
    with start(fake, "sub", "c", "--transport", "sse") as process:
        assert b"x\n" == pipe_of(process.stdout).readline()
        pipe_of(process.stdout).close()
        assert 0 == process.wait(SECONDS)
        assert b"Error" not in pipe_of(process.stderr).read()


@pytest.mark.parametrize("arguments", [["sub", "c", "--transport", "sse"], ["pub", "c", "x"], ["config", "show"]])
def test_process_on_a_full_disk(fake: Fake, arguments: list[str]) -> None:
    """Where standard output can't be written, that is one line and exit code 1."""
    fake.streams = [event(1, data="x")]
    with open("/dev/full", "wb") as full, start(fake, *arguments, stdout=full) as process:
        _, err = process.communicate(timeout=SECONDS)
    said = b"Error: standard output can't be written: No space left on device\n"
    assert (1, said) == (process.returncode, err.removeprefix(b"listening to c over sse\n"))


def test_pub_process_is_left_by_its_reader(fake: Fake) -> None:
    """An acknowledgement that nobody reads is no failure."""
    with start(fake, "pub", "c") as process:
        pipe_of(process.stdout).close()
        _, err = process.communicate(b"x\n", timeout=SECONDS)
    assert (0, b"", 1) == (process.returncode, err, len(fake.posted))


@pytest.mark.parametrize(
    "module, arguments",
    [("click", ["sub", "c"]), ("msgspec", ["pub", "c", "x"]), ("prometheus_client", ["serve", "--port", "0"])],
)
def test_process_is_interrupted_while_it_starts(fake: Fake, tmp_path: Path, module: str, arguments: list[str]) -> None:
    """Ctrl-C while modules are still being imported ends it with nothing said."""
    (tmp_path / f"{module}.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nraise SystemExit(99)\n")
    with start(fake, *arguments, first=tmp_path) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (130, b"", b"") == (process.returncode, out, err)
