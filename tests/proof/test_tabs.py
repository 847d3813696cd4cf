"""The proof of a browser's tabs finds the limit of HTTP/1.1, and none over HTTP/2."""

from __future__ import annotations

from pathlib import Path

from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.brokers.certificates import Authority
from tests.proof.tabs import Opened, bytes_of_a_poll, opened_tabs
from tests.proxies.programs import PROGRAMS, running, site_of


async def test_the_seventh_stream(tmp_path: Path) -> None:
    """Six streams of HTTP/1.1 leave no connection for more; over HTTP/2 all share one, and a poll is shorter."""
    pair = Authority(tmp_path, "authority").issue("localhost")
    server = Server(Settings(port=0, broker="memory://"))
    await server.start()
    try:
        program = PROGRAMS["nginx"]
        site = site_of(tmp_path / "nginx", [server.port] * 3, pair)
        with running(program, program.fitted(site), site):
            plain, secure = await opened_tabs(site, 7, ["sse"])
            one, two = [await bytes_of_a_poll(site, protocol) for protocol in ("http1.1", "http2")]
    finally:
        await server.stop(0)
    assert Opened("sse", "http/1.1", 7, 6, answered=False) == plain
    assert Opened("sse", "h2", 7, 7, answered=True) == secure
    assert two[0] < one[0]
    assert two[1] < one[1]
