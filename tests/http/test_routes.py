"""Every path and method of the wire, on a connection without a socket."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from oncecast.http.publishing import BATCH_LINES
from oncecast.http.service import Asset
from oncecast.message import Kind, Message
from oncecast.policy.origin import Origins
from oncecast.server.pages import load_pages
from oncecast.testing.driver import run_now

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench

    Parse = Callable[..., Answer]

A = "/v1/channels/a"


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request; an underscore in a header's name is a hyphen."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here.example"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@pytest.fixture
def ask(bench: Bench, parse: Parse) -> Callable[..., Answer]:
    """Send one request on a connection of its own and read the answer."""

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        return parse(bench.ask(request(method, path, body, **headers)), head_only=method == "HEAD")

    return ask


Ask = Callable[..., Any]


def stored(bench: Bench, channel: str = "a") -> list[Message]:
    """Return what stands in the log of a channel."""
    return [entry.message for entry in bench.app.node.log.read_after((channel,), 0, 100)]


# -- paths and methods


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", A, 200),
        ("HEAD", A, 200),
        ("POST", A, 201),
        ("OPTIONS", A, 204),
        ("GET", "/v1/channels/a,b", 200),
        ("POST", "/v1/publish", 200),
        ("OPTIONS", "/v1/publish", 204),
        ("OPTIONS", "/v1/connect", 204),
        ("GET", "/v1/connect", 426),
        ("HEAD", "/v1/connect", 426),
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/channels", 404),
        ("POST", "/v1/nothing", 404),
        ("OPTIONS", "/v1/nothing", 404),
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/nothing", 404),
        ("HEAD", "/nothing", 404),
        ("OPTIONS", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("OPTIONS", "*", 204),
        ("OPTIONS", "/", 204),
    ],
)
def test_paths(ask: Ask, method: str, path: str, status: int) -> None:
    """Each path answers the methods that the wire gives it."""
    answer = ask(method, path, b"1" if method == "POST" else b"")
    assert status == answer.status
    if status >= 400 and method != "HEAD":
        assert {"code", "message", "docs"} == set(answer.json["error"])


@pytest.mark.parametrize(
    "path, allow",
    [
        (A, "GET, HEAD, POST, OPTIONS"),
        ("/v1/publish", "POST, OPTIONS"),
        ("/v1/connect", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_refused_with_those_allowed(ask: Ask, path: str, allow: str) -> None:
    """405 and OPTIONS both name the methods (RFC 9110 §10.2.1)."""
    for method in ("PUT", "DELETE", "PATCH", "BREW"):
        answer = ask(method, path)
        assert (405, "method_not_allowed", allow) == (answer.status, answer.code, answer.headers["allow"])
    assert allow == ask("OPTIONS", path).headers["allow"]
    assert 405 == ask("GET" if path == "/v1/publish" else "PUT", path).status


def test_pages_are_read_only(ask: Ask) -> None:
    """A page takes GET and HEAD only."""
    for method, path in (("POST", "/"), ("DELETE", "/healthz"), ("PUT", "/metrics"), ("BREW", "/readyz")):
        answer = ask(method, path)
        assert (405, "GET, HEAD, OPTIONS") == (answer.status, answer.headers["allow"])
        assert (204, "GET, HEAD, OPTIONS") == ((asked := ask("OPTIONS", path)).status, asked.headers["allow"])


def test_json_ends_its_line(ask: Ask) -> None:
    """A receipt, a poll's answer and an error are one line each, so that the next prompt of a shell begins its own."""
    for answer in (ask("POST", A, b'{"a":1}'), ask("GET", A), ask("GET", A + "?after=x"), ask("GET", "/nothing")):
        assert "application/json" == answer.headers["content-type"]
        assert (b"}\n", 1, b"") == (answer.body[-2:], answer.body.count(b"\n"), answer.rest)
        assert len(answer.body) == int(answer.headers["content-length"])


def test_options_of_the_whole_server(ask: Ask) -> None:
    """RFC 9110 §9.3.7: `OPTIONS *` is about the server, and a way to ask whether it is there."""
    answer = ask("OPTIONS", "*")
    assert (204, "GET, HEAD, POST, OPTIONS", b"") == (answer.status, answer.headers["allow"], answer.rest)


def test_names_of_channels(ask: Ask, bench: Bench) -> None:
    """A name is percent-decoded before it is looked at; what is none is refused, to listen and to publish."""
    assert 201 == ask("POST", "/v1/channels/user%3A1", b"1").status
    assert 1 == len(stored(bench, "user:1"))
    for name in ("", "%20", "-a", ".", "a/b", "a%2Fb", "a%00", "%C3%A9", "a" * 129, "a,", ",a", "a,b c", "a%0D%0Ab"):
        for method in ("GET", "POST", "HEAD"):
            assert 400 == ask(method, "/v1/channels/" + name, b"1" if method == "POST" else b"").status
    assert "channel_invalid" == ask("POST", "/v1/channels/a,b", b"1").code


# -- publishing


@pytest.mark.parametrize(
    "content_type, body, kind, data",
    [
        ("application/json", b'{"a": [1, 2.50, "\\u00e9"]}', Kind.JSON, b'{"a": [1, 2.50, "\\u00e9"]}'),
        ("Application/JSON; charset=utf-8", b" null ", Kind.JSON, b" null "),
        ("text/plain", "é\r\n".encode(), Kind.TEXT, "é\r\n".encode()),
        ("text/html;charset=UTF-8", b"<b>", Kind.TEXT, b"<b>"),
        ('text/plain; format=flowed; charset="us-ascii"', b"a", Kind.TEXT, b"a"),
        ("text/plain", b"", Kind.TEXT, b""),
        ("application/octet-stream", b"\xff\x00", Kind.BINARY, b"\xff\x00"),
        ("image/png", b"{}", Kind.BINARY, b"{}"),
        ("application/x-www-form-urlencoded", b'{"t":1}', Kind.JSON, b'{"t":1}'),
        ("application/x-www-form-urlencoded", b"t=1&u=2", Kind.TEXT, b"t=1&u=2"),
        ("application/x-www-form-urlencoded", b"\xff", Kind.BINARY, b"\xff"),
        ("", b"12", Kind.JSON, b"12"),
        ("", b"hello", Kind.TEXT, b"hello"),
        ("", b"", Kind.TEXT, b""),
        ("", b"[" * 512, Kind.TEXT, b"[" * 512),
    ],
)
def test_kinds_of_data(ask: Ask, bench: Bench, content_type: str, body: bytes, kind: Kind, data: bytes) -> None:
    """JSON is kept as it was sent, text as text, the rest as bytes; what has no type is asked itself."""
    answer = ask("POST", A, body, **({"Content_Type": content_type} if content_type else {}))
    assert (201, {"id": "e0-1", "durability": "memory"}) == (answer.status, answer.json)
    assert [(kind, data)] == [(message.kind, message.data) for message in stored(bench)]


@pytest.mark.parametrize(
    "content_type, body, status, code",
    [
        ("application/json", b"{", 400, "data_invalid"),
        ("application/json", b"", 400, "data_invalid"),
        ("application/json", b'"\xff"', 400, "data_invalid"),
        ("application/json", b"[" * 100_000, 400, "data_invalid"),
        ("application/json", b"NaN", 400, "data_invalid"),
        ("application/json", b"[-Infinity]", 400, "data_invalid"),
        ("application/json", b'"\\ud800"', 400, "data_invalid"),
        ("application/json", b"[" * 513 + b"]" * 513, 400, "data_invalid"),
        ("", b"[" * 513 + b"]" * 513, 400, "data_invalid"),
        ("application/x-www-form-urlencoded", b"[" * 100_000, 400, "data_invalid"),
        ("text/plain", b"\xff", 400, "data_invalid"),
        ("text/plain; charset=latin-1", b"a", 415, "type_unsupported"),
    ],
)
def test_data_that_is_not_what_its_type_says(
    ask: Ask, bench: Bench, content_type: str, body: bytes, status: int, code: str
) -> None:
    """Malformed data is refused at the publish, and nothing of it is stored."""
    answer = ask("POST", A, body, Content_Type=content_type)
    assert (status, code, []) == (answer.status, answer.code, stored(bench))


def test_json_of_several_lines_is_put_on_one(ask: Ask, bench: Bench) -> None:
    """Line breaks between JSON's tokens are taken out: its envelope is a line."""
    assert 201 == ask("POST", A, b'{\r\n "a": 1\n}', Content_Type="application/json").status
    (message,) = stored(bench)
    assert b"\n" not in message.data
    assert {"a": 1} == json.loads(message.data)


def test_a_message_over_the_limit(ask: Ask, bench: Bench) -> None:
    """A message has its own limit, below that of a body, in a batch too."""
    bench.app.settings = replace(bench.app.settings, message_bytes=10)
    assert 201 == ask("POST", A, b"x" * 10).status
    answer = ask("POST", A, b"x" * 11)
    assert (413, "body_too_large") == (answer.status, answer.code)
    answer = ask("POST", "/v1/publish", b'{"channel":"a","data":"12345678901"}')
    assert (200, "body_too_large") == (answer.status, answer.code)


def test_limits_of_a_request(bench: Bench, ask: Ask, parse: Parse) -> None:
    """Each limit has its coded error, and closes, for the rest of the request is not read."""
    bench.app.settings = replace(bench.app.settings, header_bytes=300, header_count=5, url_bytes=100, body_bytes=20)
    for data, status, code in (
        (request("GET", A, X="x" * 300), 431, "headers_too_large"),
        (request("GET", A, a="1", b="1", c="1", d="1", e="1", f="1"), 431, "headers_too_large"),
        (request("GET", "/" + "x" * 101), 414, "url_too_long"),
        (request("POST", A, b"x" * 21), 413, "body_too_large"),
        (request("PUT", A, Transfer_Encoding="chunked") + b"15\r\n", 413, "body_too_large"),
        (request("POST", A, b"x", Content_Encoding="gzip"), 415, "type_unsupported"),
    ):  # fmt: skip
        answer = parse(bench.ask(data))
        assert (status, code, "close") == (answer.status, answer.code, answer.headers["connection"])


def test_an_idempotency_key_lands_once(ask: Ask, bench: Bench) -> None:
    """A repeated publish with the same key is answered as the first was; a key holds for its channel."""
    first, again = (ask("POST", A, b"1", Idempotency_Key="k1") for _ in range(2))
    other = ask("POST", "/v1/channels/b", b"1", Idempotency_Key="k1")
    assert (201, 201, first.json, "e0-2") == (first.status, again.status, again.json, other.json["id"])
    assert 1 == len(stored(bench))
    for key in ("x" * 256, "", "\xff"):
        answer = ask("POST", A, b"1", Idempotency_Key=key)
        assert (400, "key_invalid") == (answer.status, answer.code)


def test_a_key_in_a_header_is_the_key_in_a_batch(ask: Ask, bench: Bench) -> None:
    """A key in a header is UTF-8 with its inner spaces, as in a batch."""
    for number, key in enumerate(("é", "✓", "order 7", "order  7"), 1):
        first = ask("POST", A, b"1", Idempotency_Key=key.encode().decode("latin-1")).json
        line = json.dumps({"channel": "a", "data": 2, "key": key}).encode()
        assert [first] == lines(ask("POST", "/v1/publish", line))
        assert number == bench.app.node.log.head


@pytest.mark.parametrize("name", ["Idempotency-Key", "Oncecast-Event", "Content-Type", "Last-Event-ID", "Origin"])
def test_a_header_of_one_value_is_refused_twice(bench: Bench, parse: Parse, name: str) -> None:
    """Two keys joined would be a third, and two types none."""
    data = f"POST {A} HTTP/1.1\r\nHost: here.example\r\n{name}: a\r\n{name}: a\r\nContent-Length: 1\r\n\r\n1"
    answer = parse(bench.ask(data.encode()))
    assert (400, "request_invalid", 0) == (answer.status, answer.code, bench.app.node.log.head)


def test_an_events_name(ask: Ask, bench: Bench) -> None:
    """The name is kept with the message; one that is too long or empty is refused."""
    assert 201 == ask("POST", A, b"1", Oncecast_Event="tick").status
    assert ["tick"] == [message.event for message in stored(bench)]
    assert 201 == ask("POST", A, b"1", Oncecast_Event="é".encode().decode("latin-1")).status
    assert "é" == stored(bench)[-1].event
    for event in ("x" * 129, "", "\xff", "gap"):
        answer = ask("POST", A, b"1", Oncecast_Event=event)
        assert (400, "event_invalid") == (answer.status, answer.code)


@pytest.mark.parametrize("break_", ["\n", "\r", "\0", "\n\nevent: gap", "\r\nX: y"])
def test_no_line_break_gets_into_an_event(bench: Bench, ask: Ask, break_: str) -> None:
    """Whatever way a break comes, it makes no second line of a stream: not as a header, not in a batch."""
    bench.ask(request("POST", A, b"1", Oncecast_Event=f"a{break_}"))
    answer = ask("POST", "/v1/publish", json.dumps({"channel": "a", "data": 1, "event": f"a{break_}"}).encode())
    assert "event_invalid" == answer.code
    assert {"a"} >= {message.event for message in stored(bench)}


def test_a_publish_that_the_broker_refuses(ask: Ask, bench: Bench) -> None:
    """A refusal of the broker is the answer, with the time to wait."""
    run_now(bench.broker.stop())
    answer = ask("POST", A, b"1")
    assert (503, "unavailable", "1") == (answer.status, answer.code, answer.headers["retry-after"])


def test_a_publish_reaches_a_poll(ask: Ask) -> None:
    """A poll returns a published message of each kind as the specification shows it."""
    ask("POST", A, b'{"t":1}', Content_Type="application/json")
    ask("POST", A, b"hi", Content_Type="text/plain", Oncecast_Event="e")
    ask("POST", A, b"\xff\x00", Content_Type="application/octet-stream")
    answer = ask("GET", A + "?after=earliest")
    base = {"channel": "a", "time": 1764000000.0}
    assert [
        {"id": "e0-1", "data": {"t": 1}, "event": None, **base},
        {"id": "e0-2", "data": "hi", "event": "e", **base},
        {"id": "e0-3", "data64": {"base64": base64.b64encode(b"\xff\x00").decode()}, "event": None, **base},
    ] == answer.json["messages"]
    assert ("e0-3", None, '"e0-3"') == (answer.json["cursor"], answer.json["gap"], answer.headers["etag"])


# -- batches


def lines(answer: Answer) -> list[dict[str, Any]]:
    """Return an answer's JSON lines."""
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


def test_a_batch_is_answered_line_by_line(ask: Ask, bench: Bench) -> None:
    """Good lines are published though others are bad; blank lines count for nothing, CRLF ends a line too."""
    body = b"\r\n".join(
        [
            b'{"channel":"a","data":1,"event":"e"}',
            b'{"channel":"!","data":1}',
            b"",
            b"nonsense",
            b'{"channel":"a","data64":"/wA="}',
            b'{"channel":"b","data":{"x":null},"key":"k"}',
            b'{"channel":"b","data":{"x":null},"key":"k"}',
            b'{"channel":"a"}',
            b'{"channel":"a","data":1,"extra":2}',
            b'{"channel":"a","data":' + b"[" * 5000 + b"]" * 5000 + b"}",
            b"  ",
        ]
    )
    answer = ask("POST", "/v1/publish", body)
    assert (200, "application/x-ndjson") == (answer.status, answer.headers["content-type"])
    got = [line.get("id") or line["error"]["code"] for line in lines(answer)]
    refused = "data_invalid"
    assert ["e0-1", "channel_invalid", refused, "e0-2", "e0-3", "e0-3", refused, refused, refused] == got
    assert [("e", b"1", Kind.JSON), (None, b"\xff\x00", Kind.BINARY)] == [
        (message.event, message.data, message.kind) for message in stored(bench)
    ]
    assert 4 == bench.app.node.publishes


def test_a_batch_of_nothing(ask: Ask) -> None:
    """A batch without a line is a mistake, and the answer says what a line looks like."""
    for body in (b"", b"\n\n", b" \r\n"):
        answer = ask("POST", "/v1/publish", body)
        assert (400, "request_invalid") == (answer.status, answer.code)


def test_a_batch_of_bad_lines_alone(ask: Ask, bench: Bench) -> None:
    """With nothing to publish each line still has its answer."""
    answer = ask("POST", "/v1/publish", b"x\ny\n")
    assert (200, 2, 0) == (answer.status, len(lines(answer)), bench.app.node.log.head)


def test_a_batch_of_too_many_lines(ask: Ask, bench: Bench) -> None:
    """A batch has a bound: a larger one would hold the event loop. Empty lines do not count, the last line does."""
    line = b'{"channel":"a","data":1}\n'
    for end in (b"", b"\n", b"\r\n \t\n\n", b"\n" * 10_000):
        assert BATCH_LINES == len(lines(ask("POST", "/v1/publish", (line * BATCH_LINES)[:-1] + end)))
    assert BATCH_LINES == len(lines(ask("POST", "/v1/publish", b"\n" + line.replace(b"\n", b"\n\n") * BATCH_LINES)))
    head = bench.app.node.log.head
    for end in (line, line[:-1], b"\n" + line, b"x"):
        answer = ask("POST", "/v1/publish", line * BATCH_LINES + end)
        assert (413, "body_too_large", head) == (answer.status, answer.code, bench.app.node.log.head)


def test_a_batch_of_empty_lines(ask: Ask) -> None:
    """There is nothing to publish; a form feed is no white space of JSON."""
    for body in (b"", b"\n", b" \t\r\n" * 5000, b"\n" * 1_000_000):
        answer = ask("POST", "/v1/publish", body)
        assert (400, "request_invalid") == (answer.status, answer.code)
    assert ["data_invalid"] == [line["error"]["code"] for line in lines(ask("POST", "/v1/publish", b"\x0c\n"))]


def test_a_batch_counts_against_the_flood_guard(bench: Bench, parse: Parse) -> None:
    """Each line is a publish; a connection in debt must wait until it is paid off."""
    batch = request("POST", "/v1/publish", b'{"channel":"a","data":1}\n' * BATCH_LINES)
    connection, transport = bench.connect()
    statuses = []
    for _ in range(4):
        connection.receive(batch)
        answer = parse(transport.take())
        statuses.append(answer.status)
    assert [200, 200, 200, 429] == statuses
    assert "1" == answer.headers["retry-after"]


def test_a_batch_that_the_broker_refuses(ask: Ask, bench: Bench) -> None:
    """Each line of a batch has the broker's refusal."""
    run_now(bench.broker.stop())
    answer = ask("POST", "/v1/publish", b'{"channel":"a","data":1}\nx')
    assert ["unavailable", "data_invalid"] == [line["error"]["code"] for line in lines(answer)]


# -- listening


@pytest.mark.parametrize(
    "accept, streams",
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream", False),  # no client writes it so; a poll is the harmless reading
        ("text/html, text/event-stream;q=0.5", True),
        ("text/event-stream; q=1.0", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        ("application/json, */*", False),
        ("*/*", False),
        ("x-text/event-streams", False),
        ("", False),
    ],
)
def test_accept(bench: Bench, accept: str, streams: bool) -> None:
    """A stream is the answer if `Accept` names its type with a weight above 0 (RFC 9110 §12.5.1)."""
    head = bench.ask(request("GET", A, Accept=accept)).partition(b"\r\n\r\n")[0]
    assert (b"text/event-stream" if streams else b"application/json") in head


def test_a_streams_head(bench: Bench) -> None:
    """A stream has the headers that browsers and proxies need, and begins with its cursor."""
    head, _, body = bench.ask(request("GET", A, Accept="text/event-stream")).partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
        "Oncecast-Heartbeat": "15",
        "Transfer-Encoding": "chunked",
        "Connection": "keep-alive",
    }.items() <= fields.items()
    assert b"id: e0-0\n" in body
    assert b"retry: 1000\n" in body
    assert 1 == bench.app.counters.requests[200]


def test_a_stream_to_http_1_0_is_not_chunked(bench: Bench) -> None:
    """RFC 9112 §6.1: HTTP/1.0 knows no chunks; its stream ends when the connection closes."""
    data = bench.ask(b"GET /v1/channels/a HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head
    assert body.startswith((b"id:", b"retry:"))


def test_head_of_a_stream(ask: Ask, bench: Bench) -> None:
    """HEAD of a stream tells its headers and ends; no length, which GET would not have either (RFC 9110 §8.6)."""
    answer = ask("HEAD", A, Accept="text/event-stream")
    assert (200, "text/event-stream", b"") == (answer.status, answer.headers["content-type"], answer.rest)
    assert 0 == bench.app.node.hub.subscriptions
    get = bench.ask(request("GET", A, Accept="text/event-stream"))
    assert get.partition(b"\r\n\r\n")[0] == bench.ask(request("HEAD", A, Accept="text/event-stream"))[:-4]
    assert "content-length" not in answer.headers
    assert {200: 3} == bench.app.counters.requests


def test_after_the_head_of_a_stream(bench: Bench, parse: Parse) -> None:
    """The connection goes on with the next request, unless the head has said that it closes."""
    head = request("HEAD", A, Accept="text/event-stream")
    first = parse(bench.ask(head + request("GET", "/healthz")), head_only=True)
    assert ("keep-alive", "chunked") == (first.headers["connection"], first.headers["transfer-encoding"])
    assert b"ok\n" == parse(first.rest).body
    for closing in (request("HEAD", A, Accept="text/event-stream", Connection="close"), head.replace(b"/1.1", b"/1.0")):
        connection, transport = bench.connect()
        connection.receive(closing + request("GET", "/healthz"))
        answer = parse(transport.take(), head_only=True)
        assert (200, "close", b"") == (answer.status, answer.headers["connection"], answer.rest)
        assert (b"HTTP/1.1" in closing) == ("transfer-encoding" in answer.headers)
        assert transport.eof_written


@pytest.mark.parametrize(
    "query, headers",
    [
        ("?after=nonsense", {"Accept": "text/event-stream"}),
        ("", {"Accept": "text/event-stream", "Last_Event_ID": "nonsense"}),
        (",b" * 64, {"Accept": "text/event-stream"}),
        ("".join(f",c{number}" for number in range(64)), {"Accept": "text/event-stream"}),
        ("?wait=61", {}),
        ("?wait=x", {}),
        ("?limit=0", {}),
    ],
)
def test_head_is_refused_what_get_is(ask: Ask, query: str, headers: dict[str, str]) -> None:
    """HEAD is checked and refused as GET is."""
    get, head = (ask(method, A + query, **headers) for method in ("GET", "HEAD"))
    assert (get.status, get.headers) == (head.status, head.headers)
    assert (get.status == 400) == (query != ",b" * 64)


def test_head_of_a_poll_does_not_wait(ask: Ask) -> None:
    """HEAD of a long poll is answered at once."""
    assert 200 == ask("HEAD", A + "?wait=20&after=latest").status


def test_too_many_channels(ask: Ask, bench: Bench, upgrade: Callable[..., bytes], parse: Parse) -> None:
    """A subscription has a bound of channels, on each transport."""
    many = "/v1/channels/" + ",".join(f"c{number}" for number in range(65))
    for headers in ({}, {"Accept": "text/event-stream"}):
        assert 400 == ask("GET", many, **headers).status
    assert 400 == ask("GET", many + "?wait=5").status
    assert 400 == parse(bench.ask(upgrade(many))).status
    assert 200 == ask("GET", many.rpartition(",")[0]).status


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=e0-01",
        "after=e0--1",
        "after=e0-99999999999999999999",
        "after=",
        "after=e0-0%0D%0Ax",
        "after=latest&last=1",
        "after=latest&after=latest",
        "last=-1",
        "last=x",
        "last=1.5",
        "since=nan",
        "since=-1",
        "since=inf",
        "limit=0",
        "limit=x",
        "wait=-1",
        "wait=x",
        "wait=61",
        "x=%FF",
        "&".join(["x=1"] * 33),
    ],
)
def test_queries_that_say_nothing(ask: Ask, query: str) -> None:
    """A query without a meaning is refused, on a poll and on a stream."""
    assert 400 == ask("GET", f"{A}?{query}").status
    if query != "wait=61":  # a stream has no wait
        assert 400 == ask("GET", f"{A}?{query}", Accept="text/event-stream").status


def test_a_long_poll_comes_back(bench: Bench, parse: Parse) -> None:
    """A long poll waits for a message, and answers with it."""
    connection, transport = bench.connect()
    connection.receive(request("GET", A + "?after=latest&wait=20"))
    bench.turn()
    assert b"" == transport.take()
    bench.publish("a", b"7")
    assert [7] == [message["data"] for message in parse(transport.take()).json["messages"]]


def test_a_poll_of_what_one_has(ask: Ask) -> None:
    """If-None-Match with the newest cursor gets 304 and no body."""
    ask("POST", A, b"1")
    answer = ask("GET", A + "?after=e0-1", If_None_Match='"e0-1"')
    assert (304, '"e0-1"', b"") == (answer.status, answer.headers["etag"], answer.rest)


def test_the_same_poll_again_is_remembered_until_something_is_new(bench: Bench, parse: Parse) -> None:
    """A repeated poll gets the same bytes, counted each time; a message makes a new answer."""
    connection, transport = bench.connect()
    poll = request("GET", A)
    answers = []
    for _ in range(3):
        connection.receive(poll)
        answers.append(transport.take())
    assert 1 == len(set(answers))
    assert (1, 2) == (bench.app.counters.requests[200], bench.app.counters.remembered)
    bench.publish("a", b"1")
    connection.receive(poll)
    assert 1 == len(parse(transport.take()).json["messages"])


def test_a_remembered_poll_of_a_server_that_stops(bench: Bench, parse: Parse) -> None:
    """While it stops, a server tells each client that this was the last answer, and when to ask another."""
    connection, transport = bench.connect()
    poll = request("GET", A)
    connection.receive(poll)
    transport.take()
    bench.app.ready = False
    connection.receive(poll)
    answer = parse(transport.take())
    assert (200, "close", "1") == (answer.status, answer.headers["connection"], answer.headers["retry-after"])
    assert transport.eof_written


# -- WebSocket handshakes


def test_a_websocket_opens(bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """The answer accepts the key and the subprotocol; a raw socket has none."""
    for path, protocol in ((A, "oncecast.v1"), ("/v1/connect", "oncecast.v1"), (A, None), (A, "x, oncecast.v1")):
        head = bench.ask(upgrade(path, protocol=protocol)).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert b"\r\nOncecast-Heartbeat: 15" in head
        assert (protocol is not None) == (b"Sec-WebSocket-Protocol: oncecast.v1" in head)
    assert 4 == bench.app.counters.requests[101]


@pytest.mark.parametrize(
    "old, new, status",
    [
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Version: 13", "Version: 13, 8", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!" * 24, 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: localhost", "Host: localhost\r\nContent-Length: 5", 400),
        ("Host: localhost", "Host: localhost\r\nTransfer-Encoding: chunked", 400),
        ("oncecast.v1", "other.v1", 400),
        ("oncecast.v1", "a, a", 400),
        ("/v1/channels/a", "/v1/channels/a?after=nonsense", 400),
        ("/v1/channels/a", "/v1/channels/a?since=1&last=1", 400),
        ("GET", "HEAD", 400),
    ],
)
def test_bad_handshakes(
    bench: Bench, parse: Parse, upgrade: Callable[..., bytes], old: str, new: str, status: int
) -> None:
    """A handshake that is none is answered, and closed: what follows it are no requests."""
    data = upgrade(A).decode().replace(old, new).encode()
    connection, transport = bench.connect()
    connection.receive(data + b"\x81\x80mask" + b"0\r\n\r\n")
    answer = parse(transport.take(), head_only=new == "HEAD")
    assert status == answer.status
    if status == 426:
        assert ("13", "Upgrade, close") == (answer.headers["sec-websocket-version"], answer.headers["connection"])
        assert "websocket" == answer.headers["upgrade"]
    assert transport.eof_written


def test_connect_needs_a_handshake(ask: Ask, bench: Bench, parse: Parse, upgrade: Callable[..., bytes]) -> None:
    """`/v1/connect` is a WebSocket of the subprotocol and nothing else, and says so (RFC 9110 §15.5.22)."""
    for headers, after in (({}, "keep-alive"), ({"Connection": "close"}, "close"), ({"Upgrade": "h2c"}, "keep-alive")):
        answer = ask("GET", "/v1/connect", **headers)
        assert (426, "upgrade_required", "websocket") == (answer.status, answer.code, answer.headers["upgrade"])
        assert (f"Upgrade, {after}", "13") == (answer.headers["connection"], answer.headers["sec-websocket-version"])
        head = ask("HEAD", "/v1/connect", **headers)
        assert (426, answer.headers, b"") == (head.status, head.headers, head.rest)
    raw = parse(bench.ask(upgrade("/v1/connect", protocol=None)))
    assert (400, "request_invalid") == (raw.status, raw.code)


# -- origins


def test_a_foreign_page_is_refused(ask: Ask, bench: Bench, parse: Parse, upgrade: Callable[..., bytes]) -> None:
    """Another origin may not read, publish, ask in advance, nor open a WebSocket; nothing is done for it."""
    origin = "https://evil.example"
    for method, path in (("GET", A), ("POST", A), ("OPTIONS", A), ("POST", "/v1/publish"), ("GET", "/v1/connect")):
        answer = ask(method, path, b"1" if method == "POST" else b"", Origin=origin)
        assert (403, "origin_refused", "Origin") == (answer.status, answer.code, answer.headers["vary"])
        assert "access-control-allow-origin" not in answer.headers
    socket = upgrade(A).replace(b"Host: localhost", b"Host: localhost\r\nOrigin: https://evil.example")
    assert 403 == parse(bench.ask(socket)).status
    for odd in (
        "null",
        "http://here.example.evil.example",
        "https://friend.example/",
        "https://friend.example:444",
        "file://",
    ):
        assert 403 == ask("GET", A, Origin=odd).status
    assert (0, 0) == (bench.app.node.log.head, bench.app.node.hub.subscriptions)


def test_the_servers_own_pages_connect(ask: Ask, bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """The same origin needs no permission, with or without the default port, and behind a proxy that ends TLS."""
    for origin in ("http://here.example", "https://here.example", "http://here.example:80", "http://HERE.example"):
        answer = ask("POST", A, b"1", Origin=origin)
        assert (201, False) == (answer.status, "access-control-allow-origin" in answer.headers)
    socket = upgrade(A).replace(b"Host: localhost", b"Host: localhost\r\nOrigin: http://localhost")
    assert bench.ask(socket).startswith(b"HTTP/1.1 101 ")


def test_an_allowed_origin(ask: Ask, bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """An allowed page may read each answer, errors and streams included (Fetch Standard, CORS protocol)."""
    origin = "https://friend.example"
    for method, path, status in (("GET", A, 200), ("POST", A, 201), ("GET", A + "?after=x", 400), ("PUT", A, 405)):
        answer = ask(method, path, b"1" if method == "POST" else b"", Origin=origin)
        assert (status, origin) == (answer.status, answer.headers["access-control-allow-origin"])
        assert ("true", "Origin") == (answer.headers["access-control-allow-credentials"], answer.headers["vary"])
        assert "ETag" in answer.headers["access-control-expose-headers"]
    assert b"Access-Control-Allow-Origin: https://friend.example" in bench.ask(
        request("GET", A, Accept="text/event-stream", Origin=origin)
    )
    assert b"Access-Control-Allow-Origin: https://friend.example" in bench.ask(
        upgrade(A)
        .replace(b"Host: localhost", b"Host: localhost\r\nOrigin: https://friend.example")
        .replace(b": 13", b": 12")
    )
    socket = upgrade(A).replace(b"Host: localhost", b"Host: localhost\r\nOrigin: https://friend.example")
    assert bench.ask(socket).startswith(b"HTTP/1.1 101 ")


def test_a_preflight(ask: Ask) -> None:
    """A browser's question in advance is answered with what is allowed; without that question OPTIONS is plain."""
    answer = ask("OPTIONS", A, Origin="https://friend.example", Access_Control_Request_Method="POST")
    assert (204, "https://friend.example") == (answer.status, answer.headers["access-control-allow-origin"])
    assert "POST" in answer.headers["access-control-allow-methods"]
    for header in ("Idempotency-Key", "Oncecast-Event", "Last-Event-ID", "Content-Type", "Traceparent"):
        assert header in answer.headers["access-control-allow-headers"]
    assert int(answer.headers["access-control-max-age"]) > 0
    plain = ask("OPTIONS", A, Origin="https://friend.example")
    assert (204, False) == (plain.status, "access-control-allow-methods" in plain.headers)
    assert "access-control-allow-methods" not in ask("OPTIONS", A, Access_Control_Request_Method="POST").headers


def test_any_origin(ask: Ask, bench: Bench) -> None:
    """`*` allows all, and never with credentials."""
    bench.app.origins = Origins(frozenset({"*"}))
    answer = ask("GET", A, Origin="https://anybody.example")
    assert (200, "*") == (answer.status, answer.headers["access-control-allow-origin"])
    assert "access-control-allow-credentials" not in answer.headers


# -- everything else


def test_health_and_readiness(ask: Ask, bench: Bench) -> None:
    """A server that stops is alive, and not ready."""
    assert (b"ok\n", b"ready\n") == (ask("GET", "/healthz").body, ask("GET", "/readyz").body)
    bench.app.node.away("redis: connection refused")
    answer = ask("GET", "/readyz")
    assert (503, "Not ready: redis: connection refused.") == (answer.status, answer.json["error"]["message"])
    bench.app.node.back()
    assert 200 == ask("GET", "/readyz").status
    bench.app.ready = False
    assert 200 == ask("GET", "/healthz").status
    answer = ask("GET", "/readyz")
    assert (503, "unavailable", "1") == (answer.status, answer.code, answer.headers["retry-after"])


def test_metrics_are_prometheuss(ask: Ask) -> None:
    """`/metrics` is what a Prometheus reads."""
    answer = ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"oncecast_connections", "oncecast_requests", "oncecast_deliveries"} <= names


def test_a_page(ask: Ask) -> None:
    """A page has its tag and a policy that lets nothing of others in."""
    answer = ask("GET", "/")
    assert (200, b"<!doctype html>", '"tag"') == (answer.status, answer.body, answer.headers["etag"])
    assert {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }.items() <= answer.headers.items()
    head = ask("HEAD", "/")
    assert ("15", b"") == (head.headers["content-length"], head.rest)


@pytest.mark.parametrize(
    "tags, status", [('"tag"', 304), ('W/"tag"', 304), ('"x", "tag"', 304), ('"x"', 200), ("*", 200)]
)
def test_a_page_that_one_has(ask: Ask, tags: str, status: int) -> None:
    """If-None-Match compares weakly (RFC 9110 §13.1.2); 304 repeats the tag and has no body."""
    answer = ask("GET", "/", If_None_Match=tags)
    assert (status, '"tag"') == (answer.status, answer.headers["etag"])
    assert b"" == answer.rest


@pytest.mark.parametrize(
    "accepted, is_gzipped",
    [("gzip, br", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("identity", False), ("", False)],
)
def test_a_compressed_page(ask: Ask, bench: Bench, accepted: str, is_gzipped: bool) -> None:
    """A client that accepts gzip gets it with an ETag of its own and `Vary` (RFC 9110 §8.8.1)."""
    bench.app.pages = {"/": Asset("text/css; charset=utf-8", b"plain", '"tag"', b"packed")}
    answer = ask("GET", "/", Accept_Encoding=accepted)
    expected = (b"packed", '"tag-gzip"', "gzip") if is_gzipped else (b"plain", '"tag"', None)
    assert expected == (answer.body, answer.headers["etag"], answer.headers.get("content-encoding"))
    assert "Accept-Encoding" == answer.headers["vary"]
    assert 304 == ask("GET", "/", Accept_Encoding=accepted, If_None_Match=expected[1]).status
    assert 200 == ask("GET", "/", Accept_Encoding=accepted, If_None_Match='"other"').status


def test_the_page_of_errors(ask: Ask, bench: Bench) -> None:
    """The `docs` of an error leads to a page with that error's row."""
    bench.app.pages = load_pages()
    docs = ask("GET", A + "?after=x").json["error"]["docs"]
    path, _, code = docs.partition("#")
    answer = ask("GET", path)
    assert 200 == answer.status
    assert f'<tr id="{code}">'.encode() in answer.body
    assert "style-src 'self'" in answer.headers["content-security-policy"]


def test_every_answer_has_a_date(ask: Ask) -> None:
    """RFC 9110 §6.6.1: an origin server with a clock sends one."""
    for path in ("/healthz", A, "/nothing"):
        assert "Mon, 24 Nov 2025 16:00:00 GMT" == ask("GET", path).headers["date"]


def test_every_transport_takes_as_many_channels_with_the_longest_names(ask: Ask, bench: Bench, parse: Parse) -> None:
    """The most channels with the longest names and every field of a query fit the URL of a poll and of a stream."""
    count = bench.app.settings.channels_per_subscription
    names = ",".join(f"{number:0>128}" for number in range(count))
    query = "?after=" + "e" * 32 + "-9223372036854775807&wait=59.999999&limit=100000&envelope=1"
    path = "/v1/channels/" + names
    assert 200 == ask("GET", path).status
    assert 304 == ask("GET", f"{path}?last=1", If_None_Match='"e0-0"').status
    assert bench.ask(request("GET", path + query, Accept="text/event-stream")).startswith(b"HTTP/1.1 200 ")
    connection, transport = bench.connect()
    connection.receive(request("GET", path + query))
    assert "waiting" in connection.phase.value or 200 == parse(transport.take()).status
    assert 400 == ask("GET", path + ",more").status
