"""Limits per address, user and channel, and whose address that is: on real sockets, the exact refusals."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oncecast.policy.quotas import LIMITED
from oncecast.server import accepting
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Limits, RetentionSettings, Settings
from tests.token_rig import SECRET, token

if TYPE_CHECKING:
    from tests.server.conftest import Open, Peer, Site

LOCAL = ("127.0.0.1",)
GET = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n%s\r\n"
POST = b"POST /v1/channels/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42"
SLOW = 0.01  # a second: so one message is taken, however slow the machine is
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def proxied(limits: Limits | None = None, **others: object) -> Settings:
    """Return settings with the PROXY protocol, from this machine."""
    return Settings(port=0, proxy_protocol=True, trusted_proxies=LOCAL, limits=limits or Limits(), **others)  # type: ignore[arg-type]


def line(address: str) -> bytes:
    """Return a header of version 1."""
    return f"PROXY TCP{6 if ':' in address else 4} {address} {address} 1 2\r\n".encode()


def identities(site: Site) -> list[str]:
    """Return the addresses of the open connections."""
    assert isinstance(site.server, Server)
    return sorted(connection.identity.address for connection in site.server.app.connections)


async def ended(peer: Peer) -> bytes:
    """Return what comes until the connection is closed, or reset."""
    try:
        return await asyncio.wait_for(peer.reader.read(), 30)
    except ConnectionError:
        return b""


def error(message: str) -> dict[str, object]:
    """Return the body of a refusal."""
    return {"error": {"code": "too_many_requests", "message": message, "docs": "/docs/errors#too_many_requests"}}


# -- the PROXY protocol


@pytest.mark.parametrize(
    "header, address",
    [
        (line("192.0.2.1"), "192.0.2.1"),
        (line("2001:db8::1"), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (SIGNATURE + b"\x21\x11\x00\x0f\xc0\x00\x02\x09\x0a\x00\x00\x01\x00\x01\x00\x02\x04\x00\x00", "192.0.2.9"),
        (SIGNATURE + b"\x20\x00\x00\x00", "127.0.0.1"),
    ],
    ids=["v1", "IPv6", "unknown", "v2", "local"],
)
@pytest.mark.parametrize("cut", [0, 1, 14])
async def test_whose_connection_it_is(open_site: Open, header: bytes, address: str, cut: int) -> None:
    """The header says it, whole, in two parts or with the request behind it; the request is answered."""
    site = await open_site(proxied())
    peer = await site.connect(header[:cut] if cut else header + GET)
    if cut:
        await asyncio.sleep(0)
        await peer.send(header[cut:] + GET)
    assert 200 == (await peer.answer()).status
    assert [address] == identities(site)


async def test_a_header_byte_by_byte(open_site: Open) -> None:
    """A header is read even if each byte comes in a packet of its own."""
    site = await open_site(proxied())
    peer = await site.connect()
    for byte in line("192.0.2.1") + GET:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert 200 == (await peer.answer()).status


@pytest.mark.parametrize("data", [GET, b"PROXY TCP4 192.0.2.1\r\n" + GET, SIGNATURE + b"\x31", b"\x16\x03\x01"])
async def test_what_is_no_header_is_closed_without_an_answer(open_site: Open, data: bytes) -> None:
    """Nobody knows whose request it would be; it is counted."""
    site = await open_site(proxied())
    assert b"" == await ended(await site.connect(data))
    await site.until(lambda: site.server.app.admission.unnamed == 1)
    assert [] == identities(site)
    other = await site.connect(line("192.0.2.1") + GET)
    assert 200 == (await other.answer()).status


async def test_a_header_that_never_comes_has_a_deadline(open_site: Open) -> None:
    """A PROXY header that is missing, cut short or followed by the end is given up at its deadline."""
    site = await open_site(proxied(Limits(head_seconds=0.1)))
    for data in (b"", b"PROXY TCP4 192"):
        assert b"" == await ended(await site.connect(data))
    peer = await site.connect(b"PROXY")
    peer.writer.write_eof()
    assert b"" == await ended(peer)
    await site.until(lambda: site.server.app.admission.unnamed == 3)


async def test_a_peer_that_resets_before_its_header_is_no_handshake_that_failed(open_site: Open) -> None:
    """Whatever ends a connection before its header was whole, it counts as one that has none."""
    site = await open_site(proxied())
    for data in (b"", b"PROXY TCP4 192"):
        with socket.create_connection(("127.0.0.1", site.server.port)) as sock:
            sock.sendall(data)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await site.until(lambda: site.server.app.admission.unnamed + site.server.app.tls.failed == 2)
    assert 0 == site.server.app.tls.failed


async def test_a_late_handshake_behind_a_header_is_a_handshake_that_failed(
    open_site: Open, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that has said whose connection it is has done its part: the metrics and the log blame the client."""

    async def be_late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(accepting, "open_channel", be_late)
    cert, key = certificate
    site = await open_site(proxied(tls_cert=(cert,), tls_key=(key,)))
    assert b"" == await ended(await site.connect(line("192.0.2.1")))
    await site.until(lambda: site.server.app.tls.failed == 1)
    assert 0 == site.server.app.admission.unnamed


@pytest.mark.parametrize("sent", [b"", line("192.0.2.1")], ids=["header", "handshake"])
async def test_another_time_for_a_head_holds_for_what_comes_before_it(
    open_site: Open, certificate: tuple[str, str], sent: bytes
) -> None:
    """The wait for a header and the handshake have the time that the settings give now, not that of the start."""
    cert, key = certificate
    site = await open_site(proxied(Limits(head_seconds=600), tls_cert=(cert,), tls_key=(key,)))
    site.server.reload(proxied(Limits(head_seconds=0.1), tls_cert=(cert,), tls_key=(key,)))
    assert b"" == await ended(await site.connect(sent))


async def test_a_stranger_has_no_header_taken(open_site: Open) -> None:
    """Only trusted proxies say whose connections they pass on."""
    settings = Settings(port=0, proxy_protocol=True, trusted_proxies=("10.0.0.0/8",))
    site = await open_site(settings)
    assert b"" == await ended(await site.connect(line("192.0.2.1") + GET))
    await site.until(lambda: site.server.app.admission.unnamed == 1)


# -- addresses


async def test_connections_of_an_address(open_site: Open) -> None:
    """Past the limit the answer is 429 and a close; another address goes on; one that leaves makes room."""
    site = await open_site(proxied(Limits(connections_per_address=1)))
    first = await site.connect(line("192.0.2.1") + GET)
    assert 200 == (await first.answer()).status
    answer = await ended(await site.connect(line("192.0.2.1") + GET))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 5\r\n" in head
    assert b"\r\nConnection: close\r\n" in head + b"\r\n"
    assert error("At most 1 connections from one address.") == json.loads(body)
    for other in ("192.0.2.2", "2001:db8::1"):
        assert 200 == (await (await site.connect(line(other) + GET)).answer()).status
    again = await ended(await site.connect(line("2001:db8::2:1") + GET))  # of the same /64
    assert again.startswith(b"HTTP/1.1 429 ")
    first.writer.close()
    await site.until(lambda: "192.0.2.1" not in identities(site))
    assert 200 == (await (await site.connect(line("192.0.2.1") + GET)).answer()).status
    assert 2 == site.server.quotas.refused["connections_per_address"]


async def test_connects_of_an_address(open_site: Open) -> None:
    """Past the rate the answer is 429 and a close; another address goes on."""
    site = await open_site(proxied(Limits(connects_per_second=SLOW)))
    assert 200 == (await (await site.connect(line("192.0.2.1") + GET)).answer()).status
    head, _, body = (await ended(await site.connect(line("192.0.2.1") + GET))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert error("At most 0.01 new connections from one address a second.") == json.loads(body)
    found = re.search(rb"\r\nRetry-After: (\d+)", head)
    assert found is not None
    assert 90 < int(found[1]) <= 100
    assert 200 == (await (await site.connect(line("192.0.2.2") + GET)).answer()).status
    assert 1 == site.server.quotas.refused["connects_per_second"]


async def test_handshakes_of_an_address(open_site: Open) -> None:
    """Connections that ask for nothing are few; one that has asked does not count."""
    site = await open_site(proxied(Limits(handshakes_per_address=1)))
    asked = await site.connect(line("192.0.2.1") + GET)
    assert 200 == (await asked.answer()).status
    silent = await site.connect(line("192.0.2.1"))
    await site.until(lambda: len(identities(site)) == 2)
    refused = await ended(await site.connect(line("192.0.2.1") + GET))
    assert b"At most 1 connections from one address that have asked for nothing yet." in refused
    silent.writer.close()
    await site.until(lambda: len(identities(site)) == 1)
    assert 200 == (await (await site.connect(line("192.0.2.1") + GET)).answer()).status


async def test_loopback_has_no_limit_per_address(open_site: Open) -> None:
    """A load test, and a proxy that nobody has named, come from there."""
    site = await open_site(
        Settings(port=0, limits=Limits(connections_per_address=1, connects_per_second=1, handshakes_per_address=1))
    )
    for _ in range(5):
        assert 200 == (await (await site.connect(GET)).answer()).status


async def test_a_client_behind_a_proxy(open_site: Open) -> None:
    """Each request behind a proxy counts for the address in its own header, and a stream for that of its request."""
    site = await open_site(Settings(port=0, trusted_proxies=LOCAL, limits=Limits(connections_per_address=1)))
    peer = await site.connect()
    for client in ("192.0.2.1", "192.0.2.2"):
        await peer.send(GET.replace(b"\r\n\r\n", f"\r\nX-Forwarded-For: 6.6.6.6, {client}\r\n\r\n".encode()))
        assert 200 == (await peer.answer()).status
        assert [client] == identities(site)
    field = b"X-Forwarded-For: 192.0.2.1\r\n"
    stream = await site.connect(STREAM % field)
    await stream.until(b"retry: 1000")
    answer = await (await site.connect(STREAM % field)).answer()
    assert (429, "5") == (answer.status, answer.headers["retry-after"])
    assert error("At most 1 connections from one address.") == answer.json
    other = await site.connect(STREAM % b"X-Forwarded-For: 192.0.2.2\r\n")
    await other.until(b"retry: 1000")
    stream.writer.close()
    assert isinstance(site.server, Server)
    hub = site.server.node.hub
    await site.until(lambda: hub.subscriptions == 1)
    await (await site.connect(STREAM % field)).until(b"retry: 1000")


async def test_a_header_of_a_stranger_is_not_read(open_site: Open) -> None:
    """Without trusted proxies it may say what it wants."""
    site = await open_site(Settings(port=0))
    peer = await site.connect(GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"))
    assert 200 == (await peer.answer()).status
    assert ["127.0.0.1"] == identities(site)


# -- messages


async def test_messages_of_an_address(open_site: Open) -> None:
    """On two connections together; the refusal says when to come back."""
    site = await open_site(proxied(Limits(user_publishes_per_second=SLOW)))
    peers = [await site.connect(line("192.0.2.1")) for _ in range(2)]
    answers = []
    for peer in peers:
        await peer.send(POST % b"a")
        answers.append(await peer.answer())
    assert [201, 429] == [answer.status for answer in answers]
    assert error("At most 0.01 messages of one user a second.") == answers[1].json
    assert 90 < int(answers[1].headers["retry-after"]) <= 100


@pytest.mark.parametrize(
    "name",
    [name for name in LIMITED if name.endswith(("publishes_per_second", "bytes_per_second"))],
)
async def test_each_rate_of_messages(open_site: Open, name: str) -> None:
    """The second message is refused with the name of its limit, and counted; a client without such a limit goes on."""
    limits, rules = Limits(), {}
    if name.startswith("channel_"):
        rules = {"a": ChannelRule(**{name.removeprefix("channel_"): SLOW})}  # type: ignore[arg-type]
    else:
        limits = Limits(**{name: SLOW})  # type: ignore[arg-type]
    site = await open_site(proxied(limits, channels=rules))
    peer = await site.connect(line("192.0.2.1"))
    answers = []
    for _ in range(2):
        await peer.send(POST % b"a")
        answers.append(await peer.answer())
    assert [201, 429] == [answer.status for answer in answers]
    assert error(f"At most 0.01 {LIMITED[name]} a second.") == answers[1].json
    assert 90 < int(answers[1].headers["retry-after"]) <= 300  # a byte takes 100 s
    assert {name: 1} == {limit: count for limit, count in site.server.quotas.refused.items() if count}
    other = await site.connect(line("192.0.2.2") + POST % b"b")
    assert 201 == (await other.answer()).status


async def test_what_a_channel_takes(open_site: Open) -> None:
    """A channel's rates and its longest message hold for POST, a batch and both kinds of socket."""
    rules = {"slow": ChannelRule(publishes_per_second=SLOW), "short": ChannelRule(message_bytes=1)}
    site = await open_site(Settings(port=0, channels=rules))
    peer = await site.connect()
    statuses = []
    for channel in (b"slow", b"slow", b"fast", b"short"):
        await peer.send(POST % channel)
        statuses.append((await peer.answer()).status)
    assert [201, 429, 201, 413] == statuses
    batch = b'{"channel":"slow","data":1}\n{"channel":"short","data":12}\n{"channel":"fast","data":1}'
    await peer.send(
        b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(batch), batch)
    )
    first, second, third = (json.loads(text) for text in (await peer.answer()).body.splitlines())
    assert error("At most 0.01 messages to this channel a second.") == first
    assert "A message of short is at most 1 bytes." == second["error"]["message"]
    assert "id" in third
    for name, close in (("slow", 4429), ("short", 1009)):
        raw = await site.websocket(f"/v1/channels/{name}", protocol=None)
        await raw.send(b"\x81\x82\x00\x00\x00\x0042")
        data = await ended(raw)
        assert close == int.from_bytes(data[2:4]), data
    frames = await site.websocket("/v1/connect")
    text = b'{"type":"publish","channel":"slow","data":1,"ref":7}'
    await frames.send(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    said = await frames.until(b"}")
    assert b'"code":"too_many_requests"' in said
    assert b'"ref":7' in said or b'"ref":7' in await frames.until(b'"ref":7')
    assert {"channel_publishes_per_second": 4} == {k: n for k, n in site.server.quotas.refused.items() if n}


async def test_connections_of_all_workers(open_site: Open) -> None:
    """Past them listeners get 503, and publishes still have their reserve."""
    site = await open_site(Settings(port=0, limits=Limits(connections_in_all=1)))
    stream = await site.connect(STREAM % b"")
    await stream.until(b"retry: 1000")
    assert 503 == (await (await site.connect(STREAM % b"")).answer()).status
    assert 201 == (await (await site.connect(POST % b"a")).answer()).status
    assert b"data: 42" in await stream.until(b"data: 42")


async def test_each_limit_has_a_metric(open_site: Open) -> None:
    """Shown from the start, and counted."""
    site = await open_site(proxied(Limits(connections_per_address=1)))
    peer = await site.connect(line("192.0.2.1"))
    await site.until(lambda: len(identities(site)) == 1)
    await ended(await site.connect(line("192.0.2.1")))
    await peer.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = (await peer.answer()).body.decode()
    found = dict(re.findall(r'^oncecast_limited_total\{limit="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert set(site.server.quotas.refused) == set(found)
    assert {"connections_per_address": "1.0"} == {name: value for name, value in found.items() if value != "0.0"}


# -- users


async def test_connections_of_a_user(open_site: Open) -> None:
    """A long poll is one while it waits; the next one is refused at once, and counts again after its answer."""
    auth = AuthSettings(secret=SECRET)
    site = await open_site(Settings(port=0, auth=auth, limits=Limits(connections_per_user=1)))
    now = time.time()

    def ask(subject: str, accept: bytes = b"") -> bytes:
        bearer = token({"sub": subject, "iat": now, "exp": now + 300}).encode()
        target = b"GET /v1/channels/a?after=latest" + (b"" if accept else b"&wait=30")
        return target + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + bearer + b"\r\n" + accept + b"\r\n"

    polling, other = await site.connect(ask("ann")), await site.connect(ask("bob"))
    hub = site.server.node.hub
    await site.until(lambda: hub.subscriptions == 3)  # and that of the nodes' channel
    for accept in (b"", b"Accept: text/event-stream\r\n"):
        refused = await (await site.connect(ask("ann", accept))).answer()
        assert (429, error("At most 1 connections of one user.")) == (refused.status, refused.json)
    assert 3 == hub.subscriptions
    for number in range(3):
        site.publish("a", b"%d" % number)
        assert [str(number)] == [each["data"] for each in (await polling.answer()).json["messages"]]
        if number == 0:
            assert 200 == (await other.answer()).status
        await polling.send(ask("ann"))
        await site.until(lambda: hub.subscriptions == 2)
    polling.writer.close()
    await site.until(lambda: hub.subscriptions == 1)
    stream = await site.connect(ask("ann", b"Accept: text/event-stream\r\n"))
    assert b" 200 " in await stream.until(b"retry")
    assert 2 == site.server.quotas.refused["connections_per_user"]


# -- history


async def fill(site: Site) -> None:
    """Publish 40 messages to the channel `a`: more than memory keeps."""
    for _ in range(40):
        site.publish("a", b"x" * 4000)
    await site.until(lambda: site.server.node.log.head >= 40 and site.server.node.log.count < 40)


async def test_pages_of_history(open_site: Open, tmp_path: Path) -> None:
    """Polls and begins of streams that read the broker are few a second; what memory holds is free."""
    settings = Settings(
        port=0,
        broker=f"sqlite:///{tmp_path}/log.db",
        limits=Limits(history_pages_per_second=SLOW),
        retention=RetentionSettings(bytes=65536),
    )
    site = await open_site(settings)
    await fill(site)
    peer = await site.connect(GET)
    assert 40 == len((await peer.answer()).json["messages"])
    for query in (b"?after=earliest", b"?wait=1&after=earliest", b"?last=40", b"?since=1"):
        await peer.send(GET.replace(b" HTTP", query + b" HTTP"))
        answer = await peer.answer()
        assert (429, error("At most 0.01 pages of history of one connection a second.")) == (answer.status, answer.json)
        assert 90 < int(answer.headers["retry-after"]) < 200
    await peer.send(GET.replace(b" HTTP", b"?after=latest HTTP"))
    assert 200 == (await peer.answer()).status
    await peer.send((STREAM % b"").replace(b" HTTP", b"?after=earliest HTTP"))
    assert 429 == (await peer.answer()).status
    socket = await site.websocket("/v1/connect")
    for number, text, expected in (
        (1, b'{"type":"subscribe","channel":"a","after":"earliest","ref":1}', b'"type":"subscribed"'),
        (2, b'{"type":"unsubscribe","channel":"a","ref":2}', b'"type":"unsubscribed"'),
        (3, b'{"type":"subscribe","channel":"a","after":"earliest","ref":3}', b'"code":"too_many_requests"'),
    ):
        await socket.send(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        assert expected in await socket.until(b'"ref":%d' % number)
    assert 6 == site.server.quotas.refused["history_pages_per_second"]


async def test_pages_of_history_of_a_user(open_site: Open, tmp_path: Path) -> None:
    """On two connections together."""
    settings = proxied(
        Limits(user_history_pages_per_second=SLOW),
        broker=f"sqlite:///{tmp_path}/log.db",
        retention=RetentionSettings(bytes=65536),
    )
    site = await open_site(settings)
    await fill(site)
    answers = [await (await site.connect(line("192.0.2.1") + GET)).answer() for _ in range(2)]
    assert [200, 429] == [answer.status for answer in answers]
    assert error("At most 0.01 pages of history of one user a second.") == answers[1].json
    assert 200 == (await (await site.connect(line("192.0.2.2") + GET)).answer()).status
    assert 1 == site.server.quotas.refused["user_history_pages_per_second"]
