"""A connection over TLS that is refused as it is accepted: an answer after the handshake, or an alert."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest

from oncecast.policy.bucket import Bucket
from oncecast.policy.quotas import Quotas
from oncecast.server.capacity import Capacity
from oncecast.server.settings import Limits, Settings
from oncecast.server.tls import farewells, opening

if TYPE_CHECKING:
    from tests.server.conftest import Open, Site
    from tests.server.tls.conftest import Dial

SECONDS = 30.0
ORIGIN = "https://a.example"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\n\r\n" % ORIGIN.encode()


@pytest.fixture
async def site(open_site: Open, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Site:
    """A server whose every client has one address, and which takes one connection of it."""
    cert, key = certificate
    limits = Limits(connections_per_address=1)
    opened = await open_site(Settings(port=0, tls_cert=(cert,), tls_key=(key,), origins=(ORIGIN,), limits=limits))
    monkeypatch.setattr(Quotas, "network", lambda self, address: "192.0.2.7")  # loopback has no limit
    return opened


async def test_the_answer_to_an_address_past_its_limit(site: Site, dial: Dial) -> None:
    """It is the answer that a plain server gives, readable by the page that has asked, and an end in order."""
    first = await dial(site.server.port)
    await first.send(HEALTH)
    await first.until(b"ok")
    second = await dial(site.server.port)
    await second.send(HEALTH)
    head, _, body = (await second.all()).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert "HTTP/1.1 429 Too Many Requests" == lines[0]
    assert {"Connection: close", f"Access-Control-Allow-Origin: {ORIGIN}"} <= {*lines}
    assert any(line.startswith("Retry-After: ") for line in lines)
    assert b'"too_many_requests"' in body
    await first.send(HEALTH)
    await first.until(b"ok")
    assert 1 == site.server.quotas.refused["connections_per_address"]


async def test_a_request_that_comes_late(site: Site, dial: Dial) -> None:
    """The answer waits for the request; a client that goes before it, or says nothing of TLS, leaves nothing."""
    await dial(site.server.port)
    second = await dial(site.server.port)
    gone = await dial(site.server.port)
    gone.sock.close()
    meters = site.server.app.tls
    plain = await dial(site.server.port, shake=False)
    await asyncio.get_running_loop().sock_sendall(plain.sock, HEALTH)
    assert (await asyncio.get_running_loop().sock_recv(plain.sock, 100)).startswith(b"HTTP/1.1 400 ")
    plain.sock.close()
    await second.send(HEALTH)
    assert b"429" in await second.all()
    second.sock.close()
    await site.until(lambda: not _under_way(site))
    assert (1, 1) == (meters.plain, meters.failed)


async def test_one_that_says_goodbye(site: Site, dial: Dial) -> None:
    """A refused client that ends at once, as a check of a port does, is gone, and others are served."""
    first = await dial(site.server.port)
    second = await dial(site.server.port)
    await second.say_goodbye()
    await site.until(lambda: not _under_way(site))
    await first.send(HEALTH)
    await first.until(b"ok")


async def test_a_request_in_several_records(site: Site, dial: Dial) -> None:
    """What comes behind the first record does not take the answer away."""
    await dial(site.server.port)
    second = await dial(site.server.port)
    for piece in (b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", b"hello", HEALTH):
        second.tls.write(piece)
    await second.flush()
    assert (await second.until(b"too_many_requests")).startswith(b"HTTP/1.1 429 ")


async def test_records_without_data(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client that sends and sends, and never a byte of a request, is closed after some reads."""
    monkeypatch.setattr(opening, "FIRST_READS", 3)
    await dial(site.server.port)
    second = await dial(site.server.port)
    loop = asyncio.get_running_loop()
    second.tls.write(HEALTH)
    record = second.outgoing.read()
    with contextlib.suppress(ConnectionError):
        for at in range(len(record) - 1):  # a record that never is whole
            await loop.sock_sendall(second.sock, record[at : at + 1])
            await asyncio.sleep(0.02)
    await site.until(lambda: not _under_way(site))


async def test_a_full_server_behind_a_proxy(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """Where the handshake stands behind a header that nobody has read, there is an alert, and nothing in plain text."""
    cert, key = certificate
    settings = Settings(port=0, tls_cert=(cert,), tls_key=(key,), proxy_protocol=True, trusted_proxies=("127.0.0.1",))
    behind = await open_site(settings)
    behind.server.app.admission.capacity = Capacity(0, 0)
    peer = await dial(behind.server.port, shake=False)
    await asyncio.get_running_loop().sock_sendall(peer.sock, b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n")
    assert opening.REFUSED_ALERT == await asyncio.get_running_loop().sock_recv(peer.sock, 1000)


async def test_the_others_get_an_alert(site: Site, dial: Dial) -> None:
    """Past those that may shake hands a client is sent an alert, which its library reports."""
    await dial(site.server.port)
    for _ in range(farewells.MOST):
        await dial(site.server.port, shake=False)
    await site.until(lambda: farewells.MOST == _under_way(site))
    with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        await dial(site.server.port)


async def test_a_flood_gets_few_handshakes(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client that comes again and again costs no more than some handshakes a second."""
    monkeypatch.setattr(Bucket, "take", lambda self, now: 1.0)
    await dial(site.server.port)
    with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        await dial(site.server.port)
    assert not _under_way(site)


async def test_one_that_does_not_ask(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client that shakes hands and sends nothing is closed at its deadline."""
    monkeypatch.setattr(farewells, "SECONDS", 2.0)
    await dial(site.server.port)
    second = await dial(site.server.port)
    while await second.more():  # the session's tickets
        ...
    await site.until(lambda: not _under_way(site))


async def test_a_stop_does_not_wait_for_them(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops gives them up."""
    monkeypatch.setattr(farewells, "SECONDS", 600.0)
    await dial(site.server.port)
    await dial(site.server.port)
    assert 1 == _under_way(site)
    await asyncio.wait_for(site.server.stop(), SECONDS)
    assert not _under_way(site)


def _under_way(site: Site) -> int:
    acceptor = site.server._acceptor
    assert acceptor is not None
    assert acceptor._farewells is not None
    return len(acceptor._farewells.tasks)
