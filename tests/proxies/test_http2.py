"""Fifty streams of Server-Sent Events in one page: over HTTP/2 they share one connection, through each proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser

from oncecast.message import Draft
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.brokers.certificates import Pair
from tests.proxies.programs import PROGRAMS, running, site_of
from tests.web.conftest import PATIENCE_MS
from tests.web.conftest import browser as browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMS = 50  # over HTTP/1.1 a browser has six connections to a host
# httpd serves six requests of a connection at once, and twice as many each time that some have ended well. So a page
# that has nothing but streams gets six, and one that asks for other things meanwhile gets all of them.
OTHERS = {"httpd": 2}  # short requests for each stream

OPEN = """
async ({ count, others }) => {
  window.heard = [];
  const opened = [];
  for (let number = 0; number < count; number += 1) {
    for (let other = 0; other < others; other += 1) await (await fetch("/healthz")).text();
    const source = new EventSource(`/v1/channels/c${number}`);
    opened.push(new Promise((resolve) => { source.onopen = resolve; }));
    source.onmessage = ({ data }) => window.heard.push(data);
  }
  await Promise.all(opened);
  return performance.getEntriesByType("navigation")[0].nextHopProtocol;
}
"""


@pytest.mark.parametrize("name", PROGRAMS)
async def test_fifty_streams_in_one_page(name: str, browser: Browser, pair: Pair, folder: Path) -> None:
    """All of them are open at once, on one connection of HTTP/2, and each receives its message."""
    program = PROGRAMS[name]
    server = Server(Settings(port=0))
    await server.start()
    try:
        site = site_of(folder / name, [server.port] * 3, pair)
        with running(program, program.fitted(site), site):
            context = await browser.new_context(ignore_https_errors=True)
            try:
                context.set_default_timeout(PATIENCE_MS)
                page = await context.new_page()
                await page.goto(f"https://localhost:{site.secure}/docs/errors")
                async with asyncio.timeout(PATIENCE_MS / 1000):
                    assert "h2" == await page.evaluate(OPEN, {"count": STREAMS, "others": OTHERS.get(name, 0)})
                drafts = tuple(Draft(f"c{number}", b"%d" % number) for number in range(STREAMS))
                server.node.publish(drafts, lambda outcomes: None)
                await page.wait_for_function("(count) => window.heard.length >= count", arg=STREAMS)
                heard = await page.evaluate("window.heard")
                assert list(range(STREAMS)) == sorted(map(int, heard))
            finally:
                await context.close()
    finally:
        await server.stop(0)
