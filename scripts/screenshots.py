"""Make the pictures of the docs: the start page, /compare, /admin and `oncecast top`, of a server with traffic.

It needs Debian's Chromium and what `make .make/dev` installs. The pictures differ a little each time: make them again
where a page looks different.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import re
import shutil
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page, async_playwright

from oncecast.client.async_client import AsyncClient

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
ONCECAST = Path(sys.executable).with_name("oncecast")
WIDTH = 1280
SHOWN = "http://127.0.0.1:8000"
TERMINAL = "background:#14171c;color:#dfe4ea;font:15px/1.45 monospace;padding:1.2em;margin:0;width:max-content"
START_SECONDS = 20.0
SECONDS = 12.0  # of traffic before a picture: the lanes of /compare show ten
CHANNELS = {"orders": 0.2, "prices.eur": 0.05, "prices.usd": 0.07, "chat.lobby": 0.9}  # seconds between messages
LISTENERS = 9
TRANSPORTS = ("websocket", "sse", "long-poll")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Start a server for development; yield its URL."""
    process = await asyncio.create_subprocess_exec(
        ONCECAST, "serve", "--dev", "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        port = await asyncio.wait_for(_port(process.stderr), START_SECONDS)
        reading = asyncio.create_task(process.stderr.read())  # so that its pipe is never full
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
    await reading


async def _port(errors: asyncio.StreamReader) -> int:
    async for line in errors:
        if found := re.search(rb"listening on \S+:(\d+)", line):
            return int(found[1])
    raise SystemExit("the server did not start")


async def publish(client: AsyncClient, channel: str, pause: float) -> None:
    """Publish to a channel until the end."""
    number = 0
    while True:
        number += 1
        await client.publish(channel, {"n": number, "value": round(100 + (number * 37 % 23) / 10, 2)})
        await asyncio.sleep(pause)


async def listen(client: AsyncClient) -> None:
    """Listen to all channels until the end."""
    async for _ in client.subscribe(*CHANNELS):
        pass


async def picture(shown: Page | Locator, name: str) -> None:
    """Write what a page, or a part of one, shows."""
    await shown.screenshot(path=IMAGES / f"{name}.png")
    print(f"wrote docs/images/{name}.png")


async def main() -> None:
    """Make the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving())

        def run(work: Coroutine[Any, Any, None]) -> None:
            stack.callback(asyncio.create_task(work).cancel)

        for channel, pause in CHANNELS.items():
            client = await stack.enter_async_context(AsyncClient(url))
            run(publish(client, channel, pause))
        for number in range(LISTENERS):
            transports = (TRANSPORTS[number % len(TRANSPORTS)],)
            client = await stack.enter_async_context(AsyncClient(url, transports=transports))
            run(listen(client))
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.push_async_callback(browser.close)
        pages = {}
        for name, path, height in (("start", "/", 660), ("compare", "/compare", 1220), ("admin", "/admin", 580)):
            pages[name] = await browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            await pages[name].goto(url + path)
        for name, page in pages.items():
            await page.bring_to_front()
            await asyncio.sleep(SECONDS)
            await picture(page, name)
        top = await asyncio.create_subprocess_exec(ONCECAST, "top", url, "--once", stdout=asyncio.subprocess.PIPE)
        text = f"$ oncecast top {url} --once\n" + (await top.communicate())[0].decode()
        page = await browser.new_page()
        await page.set_content(f'<pre style="{TERMINAL}">{html.escape(text.replace(url, SHOWN))}</pre>')
        await picture(page.locator("pre"), "top")


if __name__ == "__main__":
    asyncio.run(main())
