"""What the least configuration of each proxy breaks, with all else as the program or Debian has it; and what a line of
our files is for.

`docs/how-to/behind-a-proxy.md` has the same table, and `oncecast doctor` finds each of these by name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from oncecast import AsyncClient, Broken, Refused
from oncecast.message import Draft, Kind
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from scripts.broker_servers.system import free_ports
from tests.brokers.certificates import Pair
from tests.proxies.programs import PROGRAMS, replaced, running, site_of

SECONDS = 60.0
LATE_SECONDS = 0.1  # half of what HAProxy waits without its option, and a hundred times what an event takes
EVENTS = 5
# What each default breaks; all else works.
BROKEN: Mapping[str, set[str]] = {
    "nginx": {"websocket", "page"},
    "haproxy": {"events at once"},
    "caddy": set(),
    "httpd": {"websocket", "page"},
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_what_the_default_breaks(name: str, pair: Pair, folder: Path) -> None:
    """Each default breaks exactly what the table says."""
    assert BROKEN[name] == await broken_by(name, pair, folder, default=True)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_nothing_is_broken_by_our_file(name: str, pair: Pair, folder: Path) -> None:
    """With the file of `deploy/proxies`, all of it works."""
    assert set() == await broken_by(name, pair, folder, default=False)


COMPRESSING = {
    "haproxy": (
        "    mode http\n",
        "    compression algo gzip\n    compression type text/event-stream application/json\n",
    ),
    "caddy": ("(site) {\n", "\tencode gzip\n"),
}


@pytest.mark.parametrize("compression", [False, True], ids=["as it is", "compressing"])
@pytest.mark.parametrize("name", COMPRESSING)
async def test_a_proxy_that_compresses_delays_no_event(pair: Pair, folder: Path, name: str, compression: bool) -> None:
    """A stream forbids it by `no-transform`: HAProxy would hold the end of each event until the next one comes.

    The stream begins with a replay that is long enough to be compressed, and is not.
    """
    server = Server(Settings(port=0))
    await server.start()
    try:
        server.node.publish([Draft("a", b"x" * 1000, Kind.TEXT)] * 5, lambda outcomes: None)
        site = site_of(folder / f"{name}-compression-{compression}", [server.port] * 3, pair)
        text = PROGRAMS[name].fitted(site)
        if compression:
            place, lines = COMPRESSING[name]
            text = replaced(text, {place: place + lines})
        with running(PROGRAMS[name], text, site):
            assert min(await delays(server, site.plain)) < LATE_SECONDS
            encoding = await asyncio.to_thread(encoding_of_a_poll, site.plain)
            assert ("gzip" if compression else None) == encoding  # it does compress what may be
    finally:
        await server.stop(0)


async def test_nginx_uses_a_server_as_soon_as_it_is_back(pair: Pair, folder: Path) -> None:
    """With `max_fails=0` a connection that was refused takes no server out, so a rolling restart is never a 502."""
    ports = free_ports(3)
    site = site_of(folder / "back", ports, pair)
    with running(PROGRAMS["nginx"], PROGRAMS["nginx"].fitted(site), site):
        for port in ports:  # the only one that runs: the two others refuse, and are asked all the same
            server = Server(Settings(port=port))
            await server.start()
            try:
                assert [200] * 6 == [await asyncio.to_thread(status_of_a_poll, site.plain) for _ in range(6)]
            finally:
                await server.stop(0)


async def broken_by(name: str, pair: Pair, folder: Path, *, default: bool) -> set[str]:
    """Return what does not work through a proxy."""
    program = PROGRAMS[name]
    server = Server(Settings(port=0))
    await server.start()
    try:
        site = site_of(folder / f"{name}-{default}", [server.port] * 3, pair)
        with running(program, program.default(site) if default else program.fitted(site), site):
            works = {
                transport: await hears(server, site.plain, transport)
                for transport in ("websocket", "sse", "long-poll", "short-poll")
            }
            works["page"] = await asyncio.to_thread(may_publish, site.plain)
            works["events at once"] = min(await delays(server, site.plain)) < LATE_SECONDS
            return {what for what, does in works.items() if not does}
    finally:
        await server.stop(0)


async def hears(server: Server, port: int, transport: str) -> bool:
    """Return whether a client that has this transport alone hears a message."""
    server.node.publish((Draft(transport, b"1"),), lambda outcomes: None)
    async with AsyncClient(f"http://127.0.0.1:{port}", transports=[transport], patience=1) as client:
        try:
            async with asyncio.timeout(SECONDS):
                async for message in client.subscribe(transport, after="earliest"):
                    return bool(message.data == 1)
        except (Refused, Broken):
            return False
    return False


def may_publish(port: int) -> bool:
    """Return whether a page of this address may publish: the server compares its Origin with the Host it was sent."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", "/v1/channels/a", b"1", {"Origin": f"http://127.0.0.1:{port}"})
        return connection.getresponse().status == 201
    finally:
        connection.close()


def status_of_a_poll(port: int) -> int:
    """Return the status of a short poll, on a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("GET", "/v1/channels/a")
        return connection.getresponse().status


def encoding_of_a_poll(port: int) -> str | None:
    """Return the `Content-Encoding` of a poll's answer to a client that takes gzip."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("GET", "/v1/channels/a", headers={"Accept-Encoding": "gzip"})
        return connection.getresponse().getheader("Content-Encoding")


async def delays(server: Server, port: int) -> list[float]:
    """Return how long each event takes from its publish to a reader behind the proxy, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = f"Host: 127.0.0.1:{port}", "Accept: text/event-stream", "Accept-Encoding: gzip"
        writer.write("\r\n".join(["GET /v1/channels/a?after=earliest HTTP/1.1", *lines, "", ""]).encode())
        taken = []
        async with asyncio.timeout(SECONDS):
            assert b"content-encoding" not in (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readuntil(b"retry: 1000")
            for number in range(EVENTS):
                begun = time.monotonic()
                server.node.publish((Draft("a", b"event %d." % number, Kind.TEXT),), lambda outcomes: None)
                await reader.readuntil(b"event %d." % number)
                taken.append(time.monotonic() - begun)
        return taken
    finally:
        writer.close()
