"""The JavaScript client in a browser: what a page writes, and many tabs on one connection."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from playwright.async_api import BrowserContext
from playwright.async_api import Page as Tab

from oncecast.http.service import Asset
from oncecast.message import Draft
from oncecast.server.pages import TYPES
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

from ..proof.obstacles import Obstacles

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.web.conftest import ServerProcess, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

TABS = 20
PATIENCE_MS = 30_000

# What each tab runs: it notes what it hears, and publishes when it is asked to.
LISTEN = """
async ([channel, options]) => {
  const { connect } = await import("/oncecast.js");
  window.cast = connect("/v1", options);
  window.heard = [];
  window.news = cast.subscribe(channel);
  news.on("message", (message) => heard.push(message.data));
  news.on("gap", (gap) => heard.push(gap.reason));
  await new Promise((resolve) => news.on("subscribed", resolve));
}
"""


def metric(server: ServerProcess, name: str) -> float:
    """One of the server's figures."""
    with urllib.request.urlopen(f"{server.url}metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"oncecast_{name} ")))


def publish(server: ServerProcess, channel: str, *numbers: int) -> None:
    """Publish numbers to a channel."""
    body = "\n".join(json.dumps({"channel": channel, "data": number}) for number in numbers).encode()
    with urllib.request.urlopen(f"{server.url}v1/publish", body, timeout=10) as answer:
        assert 200 == answer.status


async def open_tabs(
    context: BrowserContext, server: ServerProcess, count: int, channel: str, **options: object
) -> list[Tab]:
    """Open that number of tabs of one browser, each of which listens."""
    tabs = [await context.new_page() for _ in range(count)]
    await asyncio.gather(*(tab.goto(f"{server.url}docs/errors") for tab in tabs))
    await asyncio.gather(*(tab.evaluate(LISTEN, [channel, options]) for tab in tabs))
    return tabs


async def hears(tab: Tab, expected: list[int]) -> None:
    """Wait until a tab has heard as many as expected, and compare."""
    await tab.wait_for_function("(count) => heard.length >= count", arg=len(expected), timeout=PATIENCE_MS)
    assert expected == await tab.evaluate("heard")


@pytest.mark.parametrize("transport", ["websocket", "sse", "long-poll", "short-poll"])
async def test_a_page_publishes_and_listens(visit: Visiting, server: ServerProcess, transport: str) -> None:
    """Each transport works in a browser, with JSON, text and bytes."""
    visited = await visit(server.url)
    heard = await visited.page.evaluate(
        """
        async (transport) => {
          const { connect } = await import("/oncecast.js");
          const cast = connect("/v1", { transports: [transport], shareTabs: false });
          const news = cast.subscribe(`page-${transport}`, { after: "earliest" });
          const receipts = await Promise.all(
            [{ t: 1 }, "text", new Uint8Array([0, 255])].map((data) => cast.publish(news.channel, data)));
          const heard = [];
          for await (const message of news) {
            heard.push([message.data instanceof Uint8Array ? [...message.data] : message.data,
              message.id === receipts[heard.length].id]);
            if (heard.length === 3) break;
          }
          cast.close();
          return [...heard, cast.transport, cast.state];
        }
        """,
        transport,
    )
    assert [[{"t": 1}, True], ["text", True], [[0, 255], True], transport, "closed"] == heard


WORKER = """
import { connect } from "/oncecast.js";

onmessage = async ({ data: transport }) => {
  const cast = connect("/v1", { transports: [transport] });
  const news = cast.subscribe(`worker-${transport}`);
  await new Promise((resolve) => news.on("subscribed", resolve));
  news.on("message", ({ data }) => postMessage(data));
  news.on("gap", ({ reason }) => postMessage(reason));
  onmessage = ({ data }) => cast.publish(news.channel, data);
  postMessage("ready");
};
"""
IN_A_WORKER = """
async (transport) => {
  window.heard = [];
  window.worker = new Worker("/worker.js", { type: "module" });
  const ready = new Promise((resolve) => {
    worker.onmessage = ({ data }) => (data === "ready" ? resolve() : heard.push(data));
  });
  worker.postMessage(transport);
  await ready;
}
"""


@pytest.mark.parametrize("transport", ["websocket", "sse", "long-poll", "short-poll"])
async def test_in_a_worker(visit: Visiting, transport: str) -> None:
    """A module worker listens and publishes as a page does, and resumes when it is cut."""
    server = Server(Settings(port=0))
    await server.start()
    # Playwright could give the script to the browser, but a worker that has it from there gets no WebSocket.
    server.app.pages = {**server.app.pages, "/worker.js": Asset(TYPES[".js"], WORKER.encode(), '"worker"')}
    async with Obstacles(("127.0.0.1", server.port)) as proxy:
        visited = await visit(f"http://127.0.0.1:{proxy.port}/docs/errors")
        visited.expect_problems("net::ERR_", "WebSocket")
        tab = visited.page
        await tab.evaluate(IN_A_WORKER, transport)
        await tab.evaluate("() => worker.postMessage(0)")
        await hears(tab, [0])
        await proxy.cut()
        server.node.publish([Draft(f"worker-{transport}", data) for data in (b"1", b"2")], lambda outcomes: None)
        await hears(tab, [0, 1, 2])
        await tab.evaluate("() => worker.postMessage(3)")
        await hears(tab, [0, 1, 2, 3])
        await tab.evaluate("() => worker.terminate()")
    await server.stop(0)


async def test_below_a_path_prefix(visit: Visiting) -> None:
    """Behind a proxy that serves all of it below `/prefix/`, the modules, the requests and the socket stay there."""
    server = Server(Settings(port=0, limits=Limits(heartbeat_seconds=0.5)))
    await server.start()
    app = web.Application()
    app.router.add_route("*", "/prefix/{path:.*}", partial(forward, f"http://127.0.0.1:{server.port}"))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/prefix"
    visited = await visit(f"{url}/docs/errors")
    visited.expect_problems("WebSocket", "404")  # the proxy forwards none; the page's style is another matter
    script = """
        async () => {
          const { connect } = await import("../oncecast.js");
          const cast = connect("..", { shareTabs: false });
          const news = cast.subscribe("below", { after: "earliest" });
          await cast.publish("below", "here");
          for await (const { data } of news) {
            cast.close();
            const asked = performance.getEntriesByType("resource").map(({ name }) => new URL(name).pathname);
            return [data, asked.filter((path) => !path.startsWith("/prefix/") && !path.endsWith("css"))];
          }
        }
        """
    assert ["here", []] == await visited.page.evaluate(script)
    await runner.cleanup()
    await server.stop(0)


async def forward(target: str, request: web.Request) -> web.StreamResponse:
    """Pass a request on, and its answer as it comes; an upgrade is refused."""
    if "Upgrade" in request.headers:
        return web.Response(status=403)
    path = request.raw_path.removeprefix("/prefix")
    headers = {**request.headers, "Accept-Encoding": "identity"}
    async with (
        ClientSession(auto_decompress=False) as session,
        session.request(request.method, target + path, headers=headers, data=await request.read()) as answer,
    ):
        response = web.StreamResponse(status=answer.status)
        response.content_type = answer.content_type
        await response.prepare(request)
        async for part in answer.content.iter_any():
            await response.write(part)
        return response


async def test_a_client_remembers_what_worked(visit: Visiting, server: ServerProcess) -> None:
    """A page that has found WebSocket blocked begins the next time with what worked."""
    visited = await visit(server.url)
    visited.expect_problems("WebSocket")
    script = """
        async () => {
          const { connect } = await import("/oncecast.js");
          class WebSocket { constructor() { setTimeout(() => this.onclose({ code: 1006, reason: "" })); } close() {} }
          const cast = connect("/v1", { WebSocket, shareTabs: false });
          const reason = new Promise((resolve) => cast.on("transport", ({ to, reason }) => resolve([to, reason])));
          cast.subscribe("remembered");
          const result = await reason;
          cast.close();
          return result;
        }
        """
    assert ["sse", "websocket does not work: closed with 1006"] == await visited.page.evaluate(script)
    await visited.page.reload()
    assert ["sse", "it worked here last time"] == await visited.page.evaluate(script)


async def test_twenty_tabs_share_a_connection(browser: Browser, own_server: ServerProcess) -> None:
    """All tabs hear everything by one subscription; the one that listens is closed, and nothing is lost or repeated."""
    context = await browser.new_context()
    try:
        tabs = await open_tabs(context, own_server, TABS, "shared")
        await until_subscriptions(own_server, 1)
        publish(own_server, "shared", *range(50))
        await asyncio.gather(*(hears(tab, list(range(50))) for tab in tabs))
        assert 1 == metric(own_server, "subscriptions")
        assert {("live", "websocket")} == {tuple(await tab.evaluate("[cast.state, cast.transport]")) for tab in tabs}
        for closed in range(3):
            leader = await leading(tabs)
            first = 50 + closed * 50
            publish(own_server, "shared", *range(first, first + 25))
            await leader.close()
            tabs.remove(leader)
            publish(own_server, "shared", *range(first + 25, first + 50))
            await asyncio.gather(*(hears(tab, list(range(first + 50))) for tab in tabs))
        await until_subscriptions(own_server, 1)
    finally:
        await context.close()


async def test_a_tab_that_comes_late_starts_where_it_asks_to(browser: Browser, own_server: ServerProcess) -> None:
    """Beside a tab that listens from now on, another one gets all from the beginning, and of a second channel too."""
    context = await browser.new_context()
    try:
        publish(own_server, "late", 0, 1, 2)
        first, second = await open_tabs(context, own_server, 2, "late")
        await second.evaluate(
            """
            () => {
              window.all = [];
              window.others = [];
              cast.subscribe("late", { after: "earliest" }).on("message", (message) => all.push(message.data));
              cast.subscribe("other", { last: 2 }).on("message", (message) => others.push(message.data));
            }
            """
        )
        publish(own_server, "other", 7)
        publish(own_server, "late", 3, 4)
        await second.wait_for_function("() => all.length >= 5 && others.length >= 1", timeout=PATIENCE_MS)
        assert [[0, 1, 2, 3, 4], [7]] == await second.evaluate("[all, others]")
        await hears(first, [3, 4])
        await second.close()
        await until_subscriptions(own_server, 1)
        publish(own_server, "late", 5)
        await hears(first, [3, 4, 5])
    finally:
        await context.close()


async def test_tabs_may_have_connections_of_their_own(browser: Browser, own_server: ServerProcess) -> None:
    """Without sharing each tab has its subscription."""
    context = await browser.new_context()
    try:
        tabs = await open_tabs(context, own_server, 3, "apart", shareTabs=False)
        await until_subscriptions(own_server, 3)
        publish(own_server, "apart", 1)
        await asyncio.gather(*(hears(tab, [1]) for tab in tabs))
    finally:
        await context.close()


async def test_a_server_that_restarts(browser: Browser, own_server: ServerProcess) -> None:
    """Tabs that share a connection get the gap of a new life of the log, and go on."""
    context = await browser.new_context()
    try:
        tabs = await open_tabs(context, own_server, 3, "restarted")
        publish(own_server, "restarted", 1)
        await asyncio.gather(*(hears(tab, [1]) for tab in tabs))
        await own_server.kill()
        await own_server.start()
        publish(own_server, "restarted", 2)
        for tab in tabs:
            await tab.wait_for_function("() => heard.includes(2)", timeout=PATIENCE_MS)
            assert [1, "epoch", 2] == await tab.evaluate("heard")
    finally:
        await context.close()


async def test_a_leader_that_tells_nothing(browser: Browser, own_server: ServerProcess) -> None:
    """A tab whose leader is frozen polls for itself, and loses nothing."""
    context = await browser.new_context()
    try:
        tabs = await open_tabs(context, own_server, 2, "frozen", timing={"heartbeat": 500})
        leader = await leading(tabs)
        (other,) = (tab for tab in tabs if tab is not leader)
        await leader.evaluate("() => { BroadcastChannel.prototype.postMessage = () => {}; }")
        publish(own_server, "frozen", 1, 2, 3)
        await asyncio.gather(*(hears(tab, [1, 2, 3]) for tab in tabs))
        publish(own_server, "frozen", 4)
        await hears(other, [1, 2, 3, 4])
    finally:
        await context.close()


BUSY_SECONDS = 12.0  # longer than the others may be silent
SILENT_SECONDS = (
    6.0  # in which another tab takes over: two to ask, two to wait for an answer, and a busy machine's share
)
BUSY = "(ms) => setTimeout(() => { for (const end = performance.now() + ms; performance.now() < end; ); })"


async def test_a_leader_that_is_busy(browser: Browser, own_server: ServerProcess) -> None:
    """While the tab that listens for all computes, another one takes over in seconds; nothing is lost or repeated."""
    context = await browser.new_context()
    try:
        tabs = await open_tabs(context, own_server, 4, "busy")
        await asyncio.gather(
            *(tab.evaluate("() => { window.states = []; cast.on('state', (m) => states.push(m)); }") for tab in tabs)
        )
        leader = await leading(tabs)
        others = [tab for tab in tabs if tab is not leader]
        await leader.evaluate(BUSY, BUSY_SECONDS * 1000)
        began = asyncio.get_running_loop().time()
        publish(own_server, "busy", 1, 2, 3)
        await asyncio.gather(*(hears(tab, [1, 2, 3]) for tab in others))
        assert asyncio.get_running_loop().time() - began < SILENT_SECONDS
        publish(own_server, "busy", 4)
        await asyncio.gather(*(hears(tab, [1, 2, 3, 4]) for tab in tabs))
        assert asyncio.get_running_loop().time() - began > BUSY_SECONDS - 1
        publish(own_server, "busy", 5)
        await asyncio.gather(*(hears(tab, [1, 2, 3, 4, 5]) for tab in tabs))
        await until_subscriptions(own_server, 1)
        assert 1 == sum([await tab.evaluate("cast.connection.state === 'live'") for tab in tabs])
        assert {"live"} == {await tab.evaluate("cast.state") for tab in tabs}
    finally:
        await context.close()


async def test_a_page_that_is_busy_itself(visit: Visiting, server: ServerProcess) -> None:
    """A page that computes for long keeps its healthy WebSocket, and its place as the one that listens for all."""
    visited = await visit(f"{server.url}docs/errors")
    page = visited.page
    await page.evaluate(LISTEN, ["computing", {"timing": {"heartbeat": 1_000, "open": 500}}])
    await page.evaluate(
        "() => { window.states = []; cast.on('state', ({ to, reason }) => states.push([to, reason])); }"
    )
    await page.evaluate(BUSY, 5_000)
    publish(server, "computing", 1)
    await hears(page, [1])
    assert [] == await page.evaluate("states")
    await page.evaluate("() => cast.close()")


async def test_a_network_that_has_changed(visit: Visiting, own_server: ServerProcess) -> None:
    """When it is online again, or after a sleep, a page asks at once whether its connection lives."""
    visited = await visit(f"{own_server.url}docs/errors")
    page = visited.page
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.clock.install()
    await page.evaluate(LISTEN, ["network", {"debug": True, "shareTabs": False}])
    await page.evaluate(
        "() => { window.states = []; cast.on('state', ({ to, reason }) => states.push([to, reason])); }"
    )
    await page.evaluate("() => { dispatchEvent(new Event('online')); }")
    await page.clock.fast_forward(2_500)
    await page.clock.fast_forward(60_000)
    publish(own_server, "network", 1)
    await hears(page, [1])
    await page.evaluate("() => cast.close()")
    assert "oncecast: the browser says online: is the connection still alive?" in said
    assert "oncecast: the clock has jumped: is the connection still alive?" in said


async def leading(tabs: list[Tab]) -> Tab:
    """The tab that listens for all: the one whose client is connected itself."""
    for tab in tabs:
        if await tab.evaluate("cast.connection.state === 'live'"):
            return tab
    raise AssertionError("no tab listens")


async def until_subscriptions(server: ServerProcess, count: int) -> None:
    """Wait until the server counts that number."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while metric(server, "subscriptions") != count:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)
