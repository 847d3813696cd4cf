"""The bindings for React, Vue and Svelte in a browser: one suite, which an application in each framework passes.

To have another framework tested, add its application to `fronts`, and a row to `FRAMEWORKS`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from tests.fronts_rig import PATIENCE_MS, Lab, bundle, checkout, example
from tests.token_rig import SECRET, token

from .test_client import metric, publish, until_subscriptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext

    from tests.web.conftest import ServerProcess, Serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRAMEWORKS = {"react": "react.jsx", "vue": "vue.js", "svelte": "svelte.js"}
OLDER = {"react-18": "react.jsx", "svelte-4": "svelte-4.js"}


Script = Callable[[str], str]


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application with the package and the frameworks."""
    return checkout(tmp_path_factory.mktemp("fronts"))


@pytest.fixture(scope="session")
def script(application: Path) -> Script:
    """Bundle the application in a framework, by the framework's name."""

    @cache
    def made(framework: str) -> str:
        if framework in OLDER:
            return bundle(application, OLDER[framework], framework)
        return bundle(application, FRAMEWORKS[framework])

    return made


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """What the tabs of one browser have in common."""
    context = await browser.new_context()
    yield context
    await context.close()


each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_version = pytest.mark.parametrize("framework", [*FRAMEWORKS, *OLDER])


@each_version
async def test_the_life_of_a_view(
    context: BrowserContext, own_server: ServerProcess, script: Script, framework: str
) -> None:
    """Two views of a channel are one subscription; a change of the channel keeps the socket; none is left behind."""
    lab = await Lab.open(await context.new_page(), own_server.url, script(framework))
    news = {"channel": "news", "options": {"last": 2, "limit": 3}}
    publish(own_server, "news", 0, 1, 2)
    await lab.show(news, news)
    await lab.shows(heard=[1, 2], status="live", last=2, dropped=0, error=None, gap=None)
    assert ["subscribe"] == await lab.sent()
    assert 1 == metric(own_server, "subscriptions")
    publish(own_server, "news", 3, 4)
    await lab.shows(heard=[2, 3, 4], dropped=1)
    await lab.show(news)
    publish(own_server, "news", 5)
    await lab.shows(heard=[3, 4, 5], dropped=2)
    await lab.show(news, news)
    await lab.shows(heard=[3, 4, 5], dropped=2)
    publish(own_server, "sport", 7)
    await lab.show({"channel": "sport", "options": {"after": "earliest"}})
    await lab.shows(heard=[7], dropped=0)
    await lab.show({"channel": None})
    await lab.shows(heard=[], status="idle")
    await until_subscriptions(own_server, 0)
    await lab.show({"channel": "sport", "options": {"last": 1}})
    await lab.shows(heard=[7])
    await lab.show()
    await until_subscriptions(own_server, 0)
    assert ["subscribe", "subscribe", "unsubscribe", "unsubscribe", "subscribe", "unsubscribe"] == await lab.sent()
    assert 1 == await lab.sockets()


@each_framework
async def test_a_server_that_restarts(
    context: BrowserContext, serving: Serving, script: Script, framework: str, tmp_path: Path
) -> None:
    """What is published around a restart is heard once and in order, on a durable log."""
    server = await serving("--broker", f"sqlite:///{tmp_path}/log.db")
    lab = await Lab.open(await context.new_page(), server.url, script(framework))
    await lab.show({"channel": "news", "options": {"after": "earliest"}})
    publish(server, "news", 0, 1)
    await lab.shows(heard=[0, 1], status="live")
    publish(server, "news", 2)
    await server.kill()
    await lab.shows(status="waiting")
    await server.start()
    publish(server, "news", 3)
    await lab.shows(heard=[0, 1, 2, 3], status="live", gap=None)


@each_framework
async def test_a_gap(context: BrowserContext, own_server: ServerProcess, script: Script, framework: str) -> None:
    """A gap is shown to a view that reads gaps; where none does, it is a warning."""
    lab = await Lab.open(await context.new_page(), own_server.url, script(framework))
    await lab.show({"channel": "news"}, {"channel": "news", "options": {"last": 5}, "blind": True})
    await lab.shows(status="live")
    publish(own_server, "news", 0)
    await lab.shows(heard=[0])
    await own_server.kill()
    await own_server.start()
    publish(own_server, "news", 1)
    assert "epoch" == (await lab.shows(heard=[0, 1]))["gap"]
    (warning,) = await lab.page.evaluate("warnings")
    assert warning.startswith("oncecast: messages of news are missing (epoch, from ")
    assert warning.endswith("and no component reads `gap`: reload what they changed when it changes.")


@pytest.mark.parametrize("name", ["react.jsx", "Chat.js", "Chat.svelte"])
async def test_the_examples(context: BrowserContext, own_server: ServerProcess, application: Path, name: str) -> None:
    """The page's whole examples show what a channel has, and publish what is typed."""
    entry = f"example-{name}"
    (application / entry).write_text(example("how-to/front-ends.md", name), "utf-8")
    if name.endswith(".svelte"):
        mounted = 'mount(Chat, { target: document.querySelector("main"), props: { room: "lobby" } });'
        start = f'import {{ mount }} from "svelte"; import Chat from "./{entry}"; {mounted}'
        (application / (entry := "example-svelte.js")).write_text(start)
    page = await context.new_page()
    await Lab.begin(page, own_server.url, bundle(application, entry))
    await page.get_by_text("live").wait_for(timeout=PATIENCE_MS)
    await page.get_by_label("Message").fill("hello")
    await page.get_by_label("Message").press("Enter")
    await page.locator("li", has_text="hello").wait_for(timeout=PATIENCE_MS)
    assert 1 == await page.locator("li").count()
    assert "" == await page.get_by_label("Message").input_value()
    if place := os.environ.get("ONCECAST_SCREENSHOTS"):
        await page.screenshot(path=f"{place}/{name}.png")


@each_framework
async def test_a_tab_that_is_suspended(
    context: BrowserContext, serving: Serving, script: Script, framework: str, tmp_path: Path
) -> None:
    """A tab that is stopped, and that loses its connection meanwhile, lacks nothing when it runs again."""
    server = await serving("--broker", f"sqlite:///{tmp_path}/log.db")
    page = await context.new_page()
    lab = await Lab.open(page, server.url, script(framework))
    await lab.show({"channel": "news", "options": {"after": "earliest"}})
    publish(server, "news", 0)
    await lab.shows(heard=[0], status="live")
    browser = await context.new_cdp_session(page)
    # Chromium without a window calls every tab visible, and freezes none: the debugger stops its scripts as surely.
    stopped = asyncio.get_running_loop().create_future()
    browser.on("Debugger.paused", lambda _: stopped.set_result(None))
    await browser.send("Debugger.enable")
    await page.evaluate("() => { setInterval(() => {}, 10); }")  # it stops where a script runs
    await browser.send("Debugger.pause")
    async with asyncio.timeout(PATIENCE_MS / 1000):
        await stopped
    publish(server, "news", 1)
    await server.kill()
    await server.start()
    publish(server, "news", 2)
    await browser.send("Debugger.resume")
    await browser.send("Debugger.disable")
    await lab.shows(heard=[0, 1, 2], status="live", gap=None)


@each_framework
async def test_tabs_share_a_connection(
    context: BrowserContext, own_server: ServerProcess, script: Script, framework: str
) -> None:
    """Two tabs hear by one subscription, and the one that is left goes on."""
    labs = [await Lab.open(await context.new_page(), own_server.url, script(framework)) for _ in range(2)]
    for lab in labs:
        await lab.show({"channel": "news", "options": {"after": "earliest"}})
    publish(own_server, "news", 0)
    for lab in labs:
        await lab.shows(heard=[0], status="live")
    await until_subscriptions(own_server, 1)
    first, second = sorted([(await lab.sockets(), index) for index, lab in enumerate(labs)])
    assert (0, 1) == (first[0], second[0])
    await labs[second[1]].page.close()
    publish(own_server, "news", 1)
    await labs[first[1]].shows(heard=[0, 1], status="live", gap=None)


@each_framework
async def test_tokens_and_rules(context: BrowserContext, script: Script, framework: str) -> None:
    """The client's token opens what the rules allow; another channel shows why it is closed."""
    mine = ChannelRule(subscribe="token", publish="token")
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET), channels={"user.{sub}": mine}))
    await server.start()
    try:
        now = time.time()
        options = {"token": token({"sub": "ann", "iat": now, "exp": now + 600})}
        url = f"http://127.0.0.1:{server.port}/"
        lab = await Lab.open(await context.new_page(), url, script(framework), options)
        await lab.show({"channel": "user.ann", "options": {"after": "earliest"}})
        await lab.page.evaluate("async () => { await cast.publish('user.ann', 1); }")
        await lab.shows(heard=[1], status="live", error=None)
        await lab.show({"channel": "user.bob"})
        await lab.shows(heard=[], status="closed", error="forbidden")
        await lab.show({"channel": "user.ann", "options": {"after": "earliest"}})
        await lab.page.evaluate("async () => { await cast.publish('user.ann', 2); }")
        await lab.shows(heard=[1, 2], status="live", error=None)
    finally:
        await server.stop(0)


async def test_a_component_that_react_hides(context: BrowserContext, own_server: ServerProcess, script: Script) -> None:
    """A hidden component unsubscribes; when it is shown again it goes on at its place, not at that of another one."""
    lab = await Lab.open(await context.new_page(), own_server.url, script("react"))
    await lab.show({"channel": "news"})
    await lab.shows(status="live")
    publish(own_server, "news", 0)
    await lab.shows(heard=[0])
    await lab.show({"channel": "news", "hidden": True})
    await until_subscriptions(own_server, 0)
    publish(own_server, "news", 1)
    await lab.show({"channel": "news", "hidden": True}, {"channel": "news"})
    await lab.page.wait_for_function("() => document.querySelectorAll('pre')[1].textContent.includes('live')")
    publish(own_server, "news", 2)
    await lab.show({"channel": "news"})
    await lab.shows(heard=[0, 1, 2], status="live", gap=None)


async def test_a_client_that_is_closed(context: BrowserContext, own_server: ServerProcess, script: Script) -> None:
    """A component of a closed client shows that, and one that comes later shows why."""
    lab = await Lab.open(await context.new_page(), own_server.url, script("react"))
    await lab.show({"channel": "news"})
    await lab.shows(status="live")
    await lab.page.evaluate("cast.close()")
    await lab.shows(status="closed")
    await lab.show({"channel": "sport"})
    await lab.shows(status="closed", error="the client is closed: connect again")
