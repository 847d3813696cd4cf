"""The proxies of `docs/how-to/behind-a-proxy.md`: an event goes through them as it comes, with the settings there."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from pathlib import Path

from oncecast.message import Draft, Kind
from oncecast.server.server import Server
from oncecast.server.settings import Settings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "behind-a-proxy.md").read_text("utf-8")
EVENTS = 5
LATE_SECONDS = 0.1  # half of what HAProxy waits without its option, and a hundred times what an event takes
SECONDS = 60.0


def example(title: str, language: str) -> str:
    """Return the settings under a heading of the page."""
    match = re.search(rf"^## {title}\n\n```{language}\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_several_servers_behind_nginx_are_not_taken_out() -> None:
    """Every server of the example has the parameter without which a rolling restart ends in 502."""
    servers = re.findall(r"server (127\.0\.0\.1:\d+)([^;]*);", example("nginx", "nginx"))
    assert len(servers) == 2
    assert {" max_fails=0"} == {parameters for _, parameters in servers}


async def test_haproxy_passes_each_event_on_at_once(tmp_path: Path) -> None:
    """Also with compression on. Where HAProxy is not installed, its option is looked for in the example."""
    settings = example("HAProxy", "text")
    assert "    option http-no-delay\n" in settings
    program = shutil.which("haproxy")
    if program is None:
        return
    server = Server(Settings(port=0))
    await server.start()
    port = free_port()
    compressing = "mode http\n    compression algo gzip\n    compression type text/event-stream"
    settings = settings.replace("mode http", compressing).replace("bind :80", f"bind 127.0.0.1:{port}")
    settings = settings.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    file = tmp_path / "haproxy.cfg"
    file.write_text(settings)
    proxy = await asyncio.create_subprocess_exec(program, "-db", "-f", str(file), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(SECONDS):
            delays = await measure(server, port)
        assert min(delays) < LATE_SECONDS
    finally:
        proxy.terminate()
        await proxy.wait()
        await server.stop(0)


async def measure(server: Server, port: int) -> list[float]:
    """Return how long each event takes from its publish to a reader behind the proxy, in seconds."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except ConnectionRefusedError:  # it is starting
            await asyncio.sleep(0.05)
    lines = "Host: localhost", "Accept: text/event-stream", "Accept-Encoding: gzip"
    writer.write("\r\n".join(["GET /v1/channels/a HTTP/1.1", *lines, "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-encoding" not in head.lower()
    await reader.readuntil(b"retry: 1000\n\n")
    delays = []
    for number in range(EVENTS):
        begun = time.monotonic()
        server.node.publish((Draft("a", b"event %d." % number, Kind.TEXT),), lambda outcomes: None)
        await reader.readuntil(b"event %d." % number)
        delays.append(time.monotonic() - begun)
    writer.close()
    return delays
