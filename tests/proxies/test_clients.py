"""Both clients and Chromium behind every proxy at once, while the nodes behind them restart one after the other.

Three processes of `oncecast serve` on one Redis stand behind four proxies. Nine applications listen behind each: Python
at the plain port, Node below the prefix, a page of Chromium by TLS and HTTP/2, by WebSocket, SSE and long poll each.
Each connection goes to the next node, so whoever loses one resumes at another node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from oncecast import AsyncClient, Gap
from scripts.broker_servers.system import free_ports
from tests.brokers.certificates import Pair
from tests.proof.matrix_listeners import WEB_CLIENT
from tests.proxies.programs import PROGRAMS, Site, running, site_of
from tests.web.conftest import PATIENCE_MS, ServerProcess
from tests.web.conftest import browser as browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRANSPORTS = ("websocket", "sse", "long-poll")
SECONDS = 180.0  # for all of it, on a machine that does other things
BEFORE = 3  # messages before the first restart, and after each
CHANNEL = "news"

_LISTEN = f"""
const {{ connect }} = await import(client);
for (const [name, base, transport] of applications) {{
  const cast = connect(base, {{ transports: [transport], shareTabs: false }});
  const news = cast.subscribe({json.dumps(CHANNEL)}, {{ after: "earliest" }});
  news.on("message", ({{ data }}) => tell(name, data));
  news.on("gap", ({{ reason }}) => tell(name, reason));
}}
"""
_NODE = f"""
const [, client, given] = process.argv;
const applications = JSON.parse(given);
const tell = (name, value) => console.log(JSON.stringify([name, value]));
{_LISTEN}
"""
_PAGE = f"async ([client, applications]) => {{ {_LISTEN} }}"


class Heard:
    """What each application has seen: the numbers of its messages, and the reasons of its gaps."""

    def __init__(self, names: Sequence[str]) -> None:
        self.by_name: dict[str, list[object]] = {name: [] for name in names}
        self._changed = asyncio.Event()

    def tell(self, name: str, value: object) -> None:
        """Note what an application has seen."""
        self.by_name[name].append(value)
        self._changed.set()

    async def until(self, count: int) -> None:
        """Wait until each application has seen that number of things."""
        while any(len(seen) < count for seen in self.by_name.values()):
            self._changed.clear()
            await self._changed.wait()


async def test_nothing_is_lost_or_repeated_while_nodes_restart(
    browser: Browser, redis_url: str, pair: Pair, folder: Path
) -> None:
    """Every application behind every proxy sees each message once and in order, and no gap."""
    async with AsyncExitStack() as stack:
        nodes = [await _node(stack, f"{redis_url}?prefix=clients", port) for port in free_ports(3)]
        sites: dict[str, Site] = {}
        for name, program in PROGRAMS.items():
            sites[name] = site_of(folder / f"clients-{name}", [node.port for node in nodes], pair)
            stack.enter_context(running(program, program.fitted(sites[name]), sites[name]))
        ways = [(name, transport) for name in PROGRAMS for transport in TRANSPORTS]
        heard = Heard([f"{kind} {name} {way}" for kind in ("python", "node", "page") for name, way in ways])
        await _listen_in_python(stack, heard, sites)
        await _listen_in_node(stack, heard, sites)
        await _listen_in_pages(stack, heard, sites, browser)
        publisher = await stack.enter_async_context(AsyncClient(f"http://127.0.0.1:{sites['nginx'].plain}"))
        published: list[object] = []

        async def publish() -> None:
            for _ in range(BEFORE):
                await publisher.publish(CHANNEL, len(published))
                published.append(len(published))

        async with asyncio.timeout(SECONDS):
            await publish()
            await heard.until(len(published))
            for node in nodes:
                await asyncio.gather(node.stop(), publish())
                await node.start()
                await publish()
            with contextlib.suppress(TimeoutError):  # what is missing is shown below
                async with asyncio.timeout(SECONDS / 2):
                    await heard.until(len(published))
        assert dict.fromkeys(heard.by_name, published) == heard.by_name


async def _node(stack: AsyncExitStack, broker: str, port: int) -> ServerProcess:
    node = ServerProcess("--broker", broker)
    node.port = port
    await node.start()
    stack.push_async_callback(node.stop)
    return node


async def _listen_in_python(stack: AsyncExitStack, heard: Heard, sites: Mapping[str, Site]) -> None:
    async def listen(name: str, transport: str) -> None:
        async with AsyncClient(f"http://127.0.0.1:{sites[name].plain}", transports=[transport]) as client:
            async for item in client.subscribe(CHANNEL, after="earliest").events():
                heard.tell(f"python {name} {transport}", item.reason if isinstance(item, Gap) else item.data)

    for name in sites:
        for transport in TRANSPORTS:
            stack.push_async_callback(_end, asyncio.create_task(listen(name, transport)))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _listen_in_node(stack: AsyncExitStack, heard: Heard, sites: Mapping[str, Site]) -> None:
    applications = [
        (f"node {name} {transport}", f"http://127.0.0.1:{site.plain}/live/v1", transport)
        for name, site in sites.items()
        for transport in TRANSPORTS
    ]
    program = shutil.which("node")
    assert program is not None, "there is no node: run scripts/system-packages"
    flags = ("--experimental-websocket", "--no-warnings", "--input-type=module")
    process = await asyncio.create_subprocess_exec(
        *(program, *flags, "-e", _NODE, "--", WEB_CLIENT.as_uri(), json.dumps(applications)),
        stdout=asyncio.subprocess.PIPE,
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            heard.tell(*json.loads(line))

    reading = asyncio.create_task(read())

    async def end() -> None:
        process.kill()
        await process.wait()
        await reading

    stack.push_async_callback(end)


async def _listen_in_pages(stack: AsyncExitStack, heard: Heard, sites: Mapping[str, Site], browser: Browser) -> None:
    for name, site in sites.items():
        context = await browser.new_context(ignore_https_errors=True)
        stack.push_async_callback(context.close)
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        await page.expose_function("tell", heard.tell)
        await page.goto(f"https://localhost:{site.secure}/docs/errors")
        applications = [(f"page {name} {transport}", "/v1", transport) for transport in TRANSPORTS]
        await page.evaluate(_PAGE, ["/oncecast.js", applications])
