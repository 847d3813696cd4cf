"""Tokens in a browser: tabs that share a connection share its token, and renew it."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Page as Tab

from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Settings
from tests.token_rig import SECRET, token

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_MS = 30_000
LIFE = 3.0  # seconds of a token
LISTEN = """
async () => {
  const { connect } = await import("/oncecast.js");
  window.cast = connect("/v1", { getToken: () => freshToken() });
  window.heard = [];
  window.news = cast.subscribe("c", { after: "earliest" });
  news.on("message", (message) => heard.push(message.data));
  news.on("gap", (gap) => heard.push(gap.reason));
}
"""


def lasting(seconds: float) -> str:
    """Return a token from now on."""
    now = time.time()
    return token({"sub": "ann", "iat": now, "exp": now + seconds})


def publish(server: Server, *numbers: int) -> None:
    """Publish numbers, with a token."""
    body = "\n".join(json.dumps({"channel": "c", "data": number}) for number in numbers).encode()
    url = f"http://127.0.0.1:{server.port}/v1/publish"
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {lasting(60)}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert 200 == answer.status


async def hears(tab: Tab, expected: list[int]) -> None:
    """Wait until a tab has heard as many as expected, and compare."""
    await tab.wait_for_function("(count) => heard.length >= count", arg=len(expected), timeout=PATIENCE_MS)
    assert expected == await tab.evaluate("heard")


async def test_tabs_that_share_a_connection_renew_its_token(browser: Browser) -> None:
    """The tab that is connected renews for all; when it is closed another one goes on, with a token of its own."""
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET, leeway_seconds=0)))
    await server.start()
    context = await browser.new_context()
    given: list[str] = []

    def fresh() -> str:
        given.append(lasting(LIFE))
        return given[-1]

    try:
        await context.expose_function("freshToken", fresh)
        tabs = [await context.new_page() for _ in range(3)]
        for tab in tabs:
            await tab.goto(f"http://127.0.0.1:{server.port}/docs/errors")
            await tab.evaluate(LISTEN)
        await asyncio.to_thread(publish, server, 1, 2)
        await asyncio.gather(*(hears(tab, [1, 2]) for tab in tabs))
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while len(given) < 3:  # noqa: ASYNC110 - the tokens' lives pass
                await asyncio.sleep(0.05)
        await asyncio.to_thread(publish, server, 3)
        await asyncio.gather(*(hears(tab, [1, 2, 3]) for tab in tabs))
        states = [await tab.evaluate("cast.connection.state") for tab in tabs]
        leader = tabs.pop(states.index("live"))
        assert 1 == states.count("live")
        await leader.close()
        await asyncio.to_thread(publish, server, 4)
        await asyncio.gather(*(hears(tab, [1, 2, 3, 4]) for tab in tabs))
    finally:
        await context.close()
        await server.stop(0)
