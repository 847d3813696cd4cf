"""`oncecast broker`, over files and real servers: what it prints, what it moves, and how it fails."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from oncecast.cli import broker_log
from oncecast.cli.broker_lines import end_line, head_line, message_line
from oncecast.message import Kind, Message
from tests.brokers.servers import Servers
from tests.cli.conftest import call, complaint, free_port

_numbers = itertools.count()
KINDS = ("redis", "nats", "rabbitmq", "kafka")


def new_url(kind: str, servers: Servers) -> str:
    """Where a log of its own is, not made yet."""
    if kind == "sqlite":
        return f"sqlite:///log{next(_numbers)}.db"
    return servers.new_log(kind)


@pytest.fixture(params=["sqlite", *KINDS])
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Where a log of its own is, not made yet."""
    return new_url(request.param, servers)


def made(*messages: Message) -> bytes:
    """An export of these messages."""
    lines = [head_line("old", 99), *(message_line(message) for message in messages), end_line(len(messages))]
    return b"\n".join(lines)


def some(count: int, channels: int = 3) -> list[Message]:
    """Messages of some channels."""
    return [
        Message(n, f"c{n % channels}", b"%d" % n, Kind(n % 3), "e" if n % 2 else None, 1.0) for n in range(1, count + 1)
    ]


def put_in(url: str, messages: list[Message]) -> None:
    """Import messages."""
    result = call("broker", "import", url, stdin=made(*messages))
    assert (0, "") == (result.exit_code, result.stderr), result.output
    assert re.fullmatch(rf"Imported {len(messages)} messages into the log \w+\.\n", result.stdout)


def fields_of(message: dict[str, object]) -> tuple[object, ...]:
    """What of an exported message is kept by an import."""
    return message["channel"], message["data"], message["kind"], message["event"]


def exported(url: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Export; return the head and the messages."""
    result = call("broker", "export", url)
    assert (0, "") == (result.exit_code, result.stderr)
    head, *messages, end = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"end": True, "messages": len(messages)} == end
    return head, messages


def test_a_log_is_moved(url: str) -> None:
    """All messages are there, in order across channels, with channel, data, kind and event, in a log of a new epoch."""
    messages = some(700, channels=130)  # three groups of channels, several batches
    put_in(url, messages)
    head, moved = exported(url)
    expected = [json.loads(message_line(message)) for message in messages]
    assert [fields_of(each) for each in expected] == [fields_of(each) for each in moved]
    numbers = [int(str(each["seq"])) for each in moved]
    assert sorted(set(numbers)) == numbers
    assert "old" != head["epoch"]
    assert int(str(head["head"])) >= numbers[-1]


def test_from_one_broker_to_another(servers: Servers) -> None:
    """An export of one kind is an import of the next."""
    before = some(20)
    first = new_url("sqlite", servers)
    put_in(first, before)
    source = first
    for kind in KINDS:
        target = new_url(kind, servers)
        result = call("broker", "import", target, stdin=call("broker", "export", source).stdout_bytes)
        assert 0 == result.exit_code, result.stderr
        source = target
    assert [fields_of(each) for each in exported(first)[1]] == [fields_of(each) for each in exported(source)[1]]
    assert exported(first)[0]["epoch"] != exported(source)[0]["epoch"]


def test_pages_that_are_cut(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pages are, the export is the same."""
    put_in(url, some(60))
    expected = exported(url)
    for name, value in (("PAGE_MESSAGES", 7), ("PAGE_BYTES", 20), ("GROUP", 2)):
        monkeypatch.setattr(broker_log, name, value)
    assert expected[1] == exported(url)[1]


def test_the_state(url: str) -> None:
    """The server, the epoch, the head and the lives, for people and as JSON."""
    put_in(url, some(3))
    lines = dict(line.split(None, 1) for line in call("broker", "status", url).stdout.splitlines())
    assert {"server", "epoch", "head", "lives"} == set(lines) - {"bytes"}
    read = json.loads(call("broker", "status", "--json", url).stdout)
    assert (lines["epoch"], lines["server"]) == (read["epoch"], read["server"])
    assert read["lives"] == read["holes"] + 1
    assert (read["bytes"] is not None) is ("bytes" in lines)


def test_the_channels(url: str) -> None:
    """A line for each, or JSON."""
    put_in(url, some(5))
    rows = [line.split() for line in call("broker", "channels", url).stdout.splitlines()]
    assert [["c0", "1"], ["c1", "2"], ["c2", "2"]] == [row[:2] for row in rows]
    read = [json.loads(line) for line in call("broker", "channels", "--json", url).stdout.splitlines()]
    assert rows == [[each["name"], *(str(each[name]) for name in ("messages", "oldest", "newest"))] for each in read]


def test_trimming(url: str) -> None:
    """The newest are left, and the other channels as they were."""
    put_in(url, some(9))
    numbers = [str(each["seq"]) for each in exported(url)[1]]
    result = call("broker", "trim", url, "c0", "--messages", "1")
    assert f"c0 1 {numbers[8]} {numbers[8]}\n" == result.stdout
    assert 7 == len(exported(url)[1])
    assert "c1 0 0 0\n" == call("broker", "trim", url, "c1", "--messages", "0").stdout
    assert "c2 3" == call("broker", "trim", url, "c2", "--seconds", "3600").stdout[:4]


def test_a_log_that_is_not_empty(url: str) -> None:
    """An import into it is refused without the option to add."""
    put_in(url, some(2))
    assert "the log has messages" in complaint(call("broker", "import", url, stdin=made(*some(1))), 2)
    assert 2 == len(exported(url)[1])
    assert 0 == call("broker", "import", "--append", url, stdin=made(*some(1))).exit_code
    assert 3 == len(exported(url)[1])


def test_an_empty_log(url: str) -> None:
    """It is exported and imported."""
    put_in(url, [])
    assert [] == exported(url)[1]
    assert "" == call("broker", "channels", url).stdout


@pytest.mark.parametrize("command", ["status", "channels", "export"])
def test_no_log_is_made_by_looking(command: str, url: str) -> None:
    """A wrong prefix, stream or file is an error, again and again."""
    for _ in range(2):
        assert "there is no log" in complaint(call("broker", command, url), 2)


@pytest.mark.parametrize(
    "stdin, code, text",
    [
        (b"", 2, "standard input is empty"),
        (b"hello\n", 2, "line 1: this is not an export"),
        (head_line("e", 1), 1, "the export was cut off: 0 messages"),
        (made(*some(1)).replace(b'"messages":1', b'"messages":2'), 1, "1 messages are imported, and the export says"),
        (made(*some(1)) + b"\n" + end_line(1), 2, "line 4: there is a line after the end"),
        (made(*some(300)).replace(b'"c1"', b'"-"', 100), 2, "line 2: '-' is not a channel name"),
        (made(*some(300)).replace(b'"data":"250"', b'"data":5'), 2, "line 251: Expected `str`"),
    ],
)
def test_what_is_not_an_export(stdin: bytes, code: int, text: str) -> None:
    """One line says where, and how much is imported."""
    assert text in complaint(call("broker", "import", "sqlite:///log.db", stdin=stdin), code)
    if "251" in text:
        assert 200 == len(exported("sqlite:///log.db")[1])


def test_a_message_that_the_broker_refuses(servers: Servers) -> None:
    """The import ends, and says after which message."""
    url = new_url("nats", servers)
    large = Message(2, "a", b"1" * (9 << 20), Kind.TEXT, None, 1.0)
    stdin = made(*some(1), large, *some(1))
    text = complaint(call("broker", "import", url, stdin=stdin), 1)
    assert text.startswith("message 2 was not imported, those before it are: The broker takes at most")


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (("status", "memory://"), 2, "memory:// is the memory of one server"),
        (("status", "what://"), 2, "is not a broker's URL"),
        (("status", "redis://127.0.0.1:{port}"), 1, "redis://127.0.0.1:{port}: 127.0.0.1:{port} refuses connections"),
        (("export", "nats://127.0.0.1:{port}"), 1, "nats://127.0.0.1:{port}"),
        (("trim", "sqlite:///log.db", "a"), 2, "give --messages N, --seconds S, or both"),
        (("trim", "sqlite:///log.db", "-"), 2, "say what"),
        (("trim", "sqlite:///log.db", "/", "--messages", "1"), 2, "'/' is not a channel name"),
        (("trim", "sqlite:///log.db", "a", "--messages", "-1"), 2, "-1 is not in the range"),
        (("status", "sqlite:////nowhere/log.db"), 2, "there is no log at /nowhere/log.db"),
        (("import", "sqlite:////nowhere/log.db"), 2, "/nowhere/log.db"),
    ],
)
def test_a_wrong_call(arguments: tuple[str, ...], code: int, text: str) -> None:
    """One line, and the exit code of its kind."""
    port = str(free_port())
    given = [argument.replace("{port}", port) for argument in arguments]
    assert text.replace("{port}", port) in complaint(call("broker", *given), code)


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "text.db").write_text("no database" * 100)
    assert "text.db" in complaint(call("broker", "status", "sqlite:///text.db"), 2)
