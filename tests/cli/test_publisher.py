"""`oncecast pub`: what it sends, what it prints, and what becomes of lines that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import (
    Fake,
    call,
    complaint,
    free_port,
)


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
    """Lines that are ready are sent together, in order, each a message with a key; --json prints acknowledgements."""
    stdin = b'one\r\n\n{"a":1.10}\nla\xffst'
    result = call("pub", "c", *arguments, "--json", "--event", "é", stdin=stdin, ONCECAST_URL=fake.url)
    assert [f"e-{n}" for n in (1, 2, 3)] == [json.loads(line)["id"] for line in result.stdout.splitlines()]
    ((path, _, body),) = fake.posted
    lines = [json.loads(line) for line in body.splitlines()]
    assert ("/v1/publish", b'"data":{"a":1.10}' in body) == (path, True)
    assert ["one", {"a": 1.1}, None] == [line.get("data") for line in lines]
    assert "bGH/c3Q=" == lines[2]["data64"]
    assert ({"é"}, 3) == ({line["event"] for line in lines}, len({line["key"] for line in lines}))


def test_pub_sends_a_string_of_json_as_json(fake: Fake) -> None:
    """In a batch it would be text, so it is sent by itself, in its place."""
    result = call("pub", "c", stdin=b'1\n2\n"s"\n3\n4\n', ONCECAST_URL=fake.url)
    assert ("e-1\ne-2\ne-3\ne-4\ne-5\n", 0) == (result.stdout, result.exit_code)
    assert ["/v1/publish", "/v1/channels/c", "/v1/publish"] == [path for path, _, _ in fake.posted]
    assert (b'"s"', "application/json") == (fake.posted[1][2], fake.posted[1][1]["content-type"])


def test_pub_bounds_a_batch(fake: Fake) -> None:
    """Many lines are several requests, in order."""
    result = call("pub", "c", stdin=b"".join(b"%d\n" % n for n in range(2500)), ONCECAST_URL=fake.url)
    assert 2500 == len(result.stdout.splitlines())
    assert [1000, 1000, 500] == [len(body.splitlines()) for _, _, body in fake.posted]
    sent = [json.loads(line)["data"] for _, _, body in fake.posted for line in body.splitlines()]
    assert list(range(2500)) == sent


def test_pub_names_the_lines_that_are_refused(fake: Fake) -> None:
    """A line that is no JSON, or that the server refuses, is named; the others are published; the exit code is 1."""
    fake.refused = {"3": "body_too_large"}
    result = call("pub", "c", "--type", "json", stdin=b"1\n\n{\n2\n3\n4\n", ONCECAST_URL=fake.url)
    assert ("e-1\ne-2\ne-3\n", 1) == (result.stdout, result.exit_code)
    first, second, last = result.stderr.splitlines()
    assert first.startswith("line 3: The data is not JSON: ")
    assert ("line 5: no 3", "Error: 2 lines were not published, as said above; the others were") == (second, last)
    result = call("pub", "c", "--type", "json", stdin=b"{", ONCECAST_URL=fake.url)
    assert (1, "Error: 1 line was not published, as said above; the others were") == (
        result.exit_code,
        result.stderr.splitlines()[1],
    )


@pytest.mark.parametrize("stdin", [b"1\n", b"1\n2\n"])
def test_pub_stops_at_a_refusal_of_all(fake: Fake, stdin: bytes) -> None:
    """A refusal that is not about the data ends it, and the line is named."""
    fake.status = 403
    expected = "line 1 is not published: not\\x1b you; stopped there"
    assert expected == complaint(call("pub", "c", stdin=stdin, ONCECAST_URL=fake.url), 1)


def test_pub_prints_what_was_acknowledged_before_a_failure(fake: Fake) -> None:
    """Each acknowledgement of a batch is printed, also where another line of it ends the command."""
    fake.refused = {"2": "forbidden"}
    result = call("pub", "c", stdin=b"1\n2\n3\n", ONCECAST_URL=fake.url)
    assert ("e-1\ne-2\n", 1) == (result.stdout, result.exit_code)
    assert "Error: line 2 is not published: no 2; stopped there\n" == result.stderr


def test_pub_of_a_file(fake: Fake) -> None:
    """A whole file, or all of standard input, is one message with exactly its bytes, and may have a key."""
    data = b"\x00a\r\n\n\xff\n"
    Path("f").write_bytes(data)
    assert "e-1\n" == call("pub", "c", "--file", "f", "--key", "k", ONCECAST_URL=fake.url).stdout
    arguments = ["pub", "c", "--file", "-", "--type", "binary"]
    assert "e-2\n" == call(*arguments, stdin=data, ONCECAST_URL=fake.url).stdout
    assert [data, data] == [body for _, _, body in fake.posted]
    assert {"application/octet-stream"} == {headers["content-type"] for _, headers, _ in fake.posted}


def test_pub_with_a_key_that_no_header_carries(fake: Fake) -> None:
    """A key and an event beyond ASCII arrive as they were given."""
    call("pub", "c", "x", "--key", "order  7 ✓", "--event", "é", ONCECAST_URL=fake.url)
    ((path, _, body),) = fake.posted
    assert ("/v1/publish", "order  7 ✓", "é") == (path, json.loads(body)["key"], json.loads(body)["event"])


def test_pub_explains_itself_at_a_terminal(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, one line says how to end."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _self: True, raising=False)
    result = call("pub", "c", stdin=b"x\n", ONCECAST_URL=fake.url)
    assert "Each line you type is published; end with Ctrl-D.\n" == result.stderr


def test_pub_without_a_server() -> None:
    """The error says how to start a server."""
    url = f"http://127.0.0.1:{free_port()}"
    cure = "start one with `make serve` or `oncecast serve --dev`, or give --server"
    expected = f"no server answers at {url}: connection refused: {cure}"
    assert expected == complaint(call("pub", "c", "x", "--server", url), 1)
    assert expected == complaint(call("pub", "c", "--server", url, stdin=b"1\n2\n"), 1)


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
        (
            ["c", "x", "--key", " order 7"],
            "An Idempotency-Key is 1 to 255 characters without control characters, and has no",
        ),
        (["c", "x", "--event", "é "], "An event name is"),
        (["c", "--type", "binary"], "binary data has no lines: give --file - to publish all"),
        (["c", "x", "--file", "f"], "give DATA or --file, not both"),
        (["c", "--event", "gap"], "The event name gap is"),
        (["c", "x", "--event", "a\nb"], "An event name is"),
        (["c", "x", "--server", "ftp://h"], "'ftp://h' is not a server's URL: write http://host:port"),
    ],
)
def test_pub_called_wrongly(arguments: list[str], expected: str) -> None:
    """A wrong call exits with 2 before anything is sent."""
    assert complaint(call("pub", *arguments), 2).startswith(expected)
