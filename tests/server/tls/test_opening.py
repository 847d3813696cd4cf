"""Handshakes: those that fail, those that are late, and what a client gets that does not encrypt."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from oncecast.server.settings import Limits, Settings
from oncecast.server.tls import opening

if TYPE_CHECKING:
    from tests.server.conftest import Open
    from tests.server.tls.conftest import Dial

SECONDS = 30.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def settings(certificate: tuple[str, str], **limits: Any) -> Settings:
    """Return the settings of a server with TLS."""
    return Settings(port=0, tls_cert=(certificate[0],), tls_key=(certificate[1],), limits=Limits(**limits))


async def exchange(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Send bytes as they are, and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if end:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    finally:
        writer.transport.abort()


# -- plain HTTP


@pytest.mark.parametrize("request_", [HEALTH, b"GET ", b"POST /v1/channels/a HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n"])
async def test_plain_http_is_answered(open_site: Open, certificate: tuple[str, str], request_: bytes) -> None:
    """A request that is not encrypted gets a 400 that says what to do, and the connection ends in order."""
    site = await open_site(settings(certificate))
    assert (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Cache-Control: no-store\r\n"
        b"Content-Length: 87\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"This port speaks HTTPS: ask for https:// and not http://, or for wss:// and not ws://.\n"
    ) == await exchange(site.server.port, request_)
    assert not site.server.app.admission._opening


async def test_plain_http_with_a_large_body(open_site: Open, certificate: tuple[str, str]) -> None:
    """The rest of a plain request's body is discarded, so that no reset takes the answer away."""
    site = await open_site(settings(certificate))
    answer = await exchange(site.server.port, b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_client_of_plain_http_that_stays(
    open_site: Open, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection of plain HTTP is closed at its deadline."""
    monkeypatch.setattr(opening, "DISCARD_SECONDS", 0.1)
    site = await open_site(settings(certificate))
    assert (await exchange(site.server.port, HEALTH, end=False)).startswith(b"HTTP/1.1 400 ")
    await site.until(lambda: not site.server.app.admission._opening)


# -- handshakes that fail


@pytest.mark.parametrize(
    "data, alert",
    [
        (b"\x16\x03\x01", b""),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01", b""),
        (b"\x00" * 64, b""),
        (b"\x16\x03\x01\x00\x06\x02\x00\x00\x02\x03\x03", b"\x15\x03\x03\x00\x02\x02\x0a"),  # unexpected_message
        (b"\x17\x03\x03\x00\x01\x00", b"\x15\x03\x03\x00\x02\x02\x0a"),
    ],
    ids=["a header", "half a hello", "zeros", "a server's hello", "data"],
)
async def test_a_handshake_that_is_none(
    open_site: Open, certificate: tuple[str, str], caplog: pytest.LogCaptureFixture, data: bytes, alert: bytes
) -> None:
    """A failed handshake gets its alert, or none after the client has gone, frees its place, and is not logged."""
    site = await open_site(settings(certificate))
    assert alert == await exchange(site.server.port, data)
    await site.until(lambda: not site.server.app.admission._opening)
    assert "" == caplog.text


async def test_a_handshake_that_is_late(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """A client that stops in the middle is cut off in the time of a head; bytes that drip in do not move that."""
    site = await open_site(settings(certificate, head_seconds=0.5))
    client = await dial(site.server.port, shake=False)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client.outgoing.read()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with contextlib.suppress(ConnectionError):
        for at in range(len(hello)):
            await loop.sock_sendall(client.sock, hello[at : at + 1])
            await asyncio.sleep(0.05)
        assert b"" == await asyncio.wait_for(loop.sock_recv(client.sock, 1), SECONDS)
    assert loop.time() - began < 20
    await site.until(lambda: not site.server.app.admission._opening)


async def test_old_versions_are_refused(
    open_site: Open, certificate: tuple[str, str], dial: Dial, trust: Callable[[], ssl.SSLContext]
) -> None:
    """TLS 1.1 gets the alert protocol_version."""
    site = await open_site(settings(certificate))
    context = trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        await dial(site.server.port, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("offered, chosen", [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)])
async def test_what_is_negotiated(
    open_site: Open,
    certificate: tuple[str, str],
    dial: Dial,
    trust: Callable[[], ssl.SSLContext],
    version: ssl.TLSVersion,
    offered: list[str],
    chosen: str | None,
) -> None:
    """TLS 1.2 and 1.3 with keys that are thrown away and ciphers that authenticate; http/1.1 where it is offered."""
    site = await open_site(settings(certificate))
    context = trust()
    context.minimum_version = context.maximum_version = version
    if offered:
        context.set_alpn_protocols(offered)
    client = await dial(site.server.port, context)
    assert chosen == client.tls.selected_alpn_protocol()
    cipher = client.tls.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-" if version is ssl.TLSVersion.TLSv1_2 else "TLS_")
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
async def test_ciphers_that_are_not_accepted(
    open_site: Open, certificate: tuple[str, str], dial: Dial, trust: Callable[[], ssl.SSLContext], cipher: str
) -> None:
    """No key exchange without forward secrecy, no CBC, no finite-field Diffie-Hellman: the alert handshake_failure."""
    site = await open_site(settings(certificate))
    context = trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.handshake.failure"):
        await dial(site.server.port, context)


async def test_renegotiation_is_refused(open_site: Open, certificate: tuple[str, str]) -> None:
    """A client of TLS 1.2 that begins another handshake gets the alert no_renegotiation (RFC 5246 §7.2.2)."""
    site = await open_site(settings(certificate))
    port = site.server.port
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            await client.stdout.readuntil(b"---\n")  # it is connected
            await client.stdout.readuntil(b"Extended master secret:")
            client.stdin.write(b"R\n")
            said = await client.stdout.read()
    finally:
        if client.returncode is None:
            client.terminate()
        await client.wait()
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said


# -- many


async def test_handshakes_take_the_time_for_reads(
    open_site: Open, certificate: tuple[str, str], dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a turn's time is spent, the next step waits for its turn: all of them come to their end."""
    site = await open_site(settings(certificate))
    budget = site.server.app.reading
    waited = []
    wait = budget.wait

    def count(reader: object) -> None:
        waited.append(reader)
        wait(reader)  # type: ignore[arg-type]

    monkeypatch.setattr(budget, "wait", count)
    monkeypatch.setattr("oncecast.server.tls.shared.TURN_SECONDS", 0.0)
    clients = await asyncio.gather(*(dial(site.server.port) for _ in range(20)))
    for client in clients:
        await client.send(HEALTH)
    for client in clients:
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert waited


async def test_a_flood_of_handshakes(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """At most `limits.handshakes` are under way; the oldest are cut and counted, and a real client gets through."""
    site = await open_site(settings(certificate, handshakes=8))
    silent = [await dial(site.server.port, shake=False) for _ in range(30)]
    await site.until(lambda: site.server.app.tls.cut == 22)
    await site.until(lambda: site.server.app.tls.handshakes == 8)
    client = await dial(site.server.port)
    await client.send(HEALTH)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await site.until(lambda: site.server.app.tls.handshakes == 7)
    assert 23 == site.server.app.tls.cut
    for each in silent:
        each.sock.close()
    await site.until(lambda: site.server.app.tls.handshakes == 0)
    assert 7 == site.server.app.tls.failed


async def test_what_fails_is_counted(open_site: Open, certificate: tuple[str, str]) -> None:
    """Requests without TLS and handshakes that are none have a metric each."""
    site = await open_site(settings(certificate))
    for data in (HEALTH, HEALTH, b"\x16\x03\x01"):
        await exchange(site.server.port, data)
    await site.until(lambda: not site.server.app.tls.handshakes)
    assert (2, 1) == (site.server.app.tls.plain, site.server.app.tls.failed)
