"""A connection over TLS that is refused as it is accepted: an answer after the handshake, or an alert."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from oncecast.policy.bucket import Bucket
from oncecast.policy.quotas import Quotas
from oncecast.server.settings import Limits, Settings
from oncecast.server.tls import farewells

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
    plain = await dial(site.server.port, shake=False)
    await asyncio.get_running_loop().sock_sendall(plain.sock, HEALTH)
    assert (await asyncio.get_running_loop().sock_recv(plain.sock, 100)).startswith(b"HTTP/1.1 400 ")
    plain.sock.close()
    await second.send(HEALTH)
    assert b"429" in await second.all()
    second.sock.close()
    await site.until(lambda: not _under_way(site))


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
    monkeypatch.setattr(farewells, "SECONDS", 0.2)
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
