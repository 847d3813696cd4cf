"""The bindings for React, Vue and Svelte in a browser: one suite, which an application in each framework passes.

To have another framework tested, add its application to `fronts`, and a row to `FRAMEWORKS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fronts_rig import PATIENCE_MS, Lab, bundle, checkout, example

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
