"""htmx with its extensions `sse` and `ws`, against streams and raw sockets as they are: the page's examples."""

from __future__ import annotations

import re
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from tests.fronts_rig import PAGE, PATIENCE_MS, PEERS, example
from tests.token_rig import SECRET, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page, Route

    from tests.web.conftest import ServerProcess, Serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIBRARIES = ("htmx.org/dist/htmx.min.js", "htmx-ext-sse/sse.js", "htmx-ext-ws/ws.js")
QUICK = ";\nhtmx.config.wsReconnectDelay = () => 50;\n"
CONFIGURE = """
() => {
  const settings = document.createElement("meta"); // the policy of the server's pages allows no inline styles
  Object.assign(settings, { name: "htmx-config", content: '{"includeIndicatorStyles": false}' });
  document.head.append(settings);
}
"""
# htmx starts at once in a page that is complete, and would not know the extensions that follow.
BEGIN = "(markup) => { document.body.innerHTML = markup; htmx.process(document.body); }"


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab of its own."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def show(page: Page, url: str, name: str) -> None:
    """Show an example on a page of the server, with htmx, whose files the server does not have."""
    text = example("how-to/front-ends.md", name)
    markup, script = re.split(r"<script>|</script>", text)[:2]
    libraries = ";\n".join((PEERS / library).read_text("utf-8") for library in LIBRARIES)
    body = libraries + QUICK + script
    await page.route("**/htmx.js", lambda route: route.fulfill(body=body, content_type="text/javascript"))
    await page.goto(url + PAGE)
    await page.evaluate(CONFIGURE)
    await page.add_script_tag(url="/htmx.js")
    await page.evaluate(BEGIN, markup)


def publish(url: str, channel: str, markup: str, event: str = "") -> None:
    """Publish HTML, as an application would."""
    headers = {"Content-Type": "text/html"} | ({"Oncecast-Event": event} if event else {})
    request = urllib.request.Request(f"{url}v1/channels/{channel}", markup.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201)


async def has(page: Page, selector: str, *texts: str) -> None:
    """Wait until these are the texts of the elements."""
    condition = """
    ([selector, expected]) => {
      const texts = [...document.querySelectorAll(selector)].map((element) => element.textContent);
      return JSON.stringify(texts) === expected;
    }
    """
    expected = "[" + ",".join(f'"{text}"' for text in texts) + "]"
    try:
        await page.wait_for_function(condition, arg=[selector, expected], timeout=PATIENCE_MS)
    except Exception as error:
        error.add_note(f"The page has {await page.inner_html('main')}")
        raise


async def test_sse_across_a_restart(page: Page, serving: Serving, tmp_path: Path) -> None:
    """Each fragment is swapped in once, by its event's name, also what is published while the page is cut off."""
    server = await serving("--broker", f"sqlite:///{tmp_path}/log.db")
    publish(server.url, "orders", "<li>1</li>")
    await show(page, server.url, "sse.html")
    await has(page, "li", "1")
    publish(server.url, "orders", "<b>7 euros</b>", "total")
    await has(page, "main p b", "7 euros")
    publish(server.url, "orders", "<li>2</li>")
    await server.kill()
    await server.start()
    publish(server.url, "orders", "<li>3</li>")
    await has(page, "li", "1", "2", "3")


async def test_sse_after_an_answer_that_is_no_stream(page: Page, own_server: ServerProcess) -> None:
    """Where an EventSource has given up, the next one goes on after the last message that the page has."""
    publish(own_server.url, "orders", "<li>1</li>")
    await show(page, own_server.url, "sse.html")
    await has(page, "li", "1")
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await (route.fulfill(status=503) if len(asked) == 1 else route.continue_())

    await page.route("**/v1/channels/orders?**", refuse)
    await own_server.kill()
    await own_server.start()
    publish(own_server.url, "orders", "<li>2</li>")
    await has(page, "li", "1", "2")
    assert "after=earliest" in asked[0]
    assert re.search(r"orders\?after=\w+-\d+$", asked[1])


async def test_sse_and_a_gap(page: Page, own_server: ServerProcess) -> None:
    """At a gap the page asks the application for the whole list."""
    whole = "<li>0</li><li>1</li>"
    await page.route("**/orders", lambda route: route.fulfill(body=whole, content_type="text/html"))
    publish(own_server.url, "orders", "<li>1</li>")
    await show(page, own_server.url, "sse.html")
    await has(page, "li", "1")
    await own_server.kill()
    await own_server.start()
    await has(page, "li", "0", "1")
    publish(own_server.url, "orders", "<li>2</li>")
    await has(page, "li", "0", "1", "2")


async def test_ws_across_a_restart(page: Page, own_server: ServerProcess) -> None:
    """A raw socket's messages replace the element of their id; the extension connects again."""
    await show(page, own_server.url, "ws.html")
    publish(own_server.url, "price", '<p id="price">1</p>')
    await has(page, "#price", "1")
    await own_server.kill()
    await own_server.start()
    publish(own_server.url, "price", '<p id="price">2</p>')
    await has(page, "#price", "2")


async def test_a_cookie(page: Page) -> None:
    """The extensions send the cookie that has the token; a page without it hears nothing."""
    rule = ChannelRule(subscribe="token", publish="token")
    auth = AuthSettings(secret=SECRET, cookie="session")
    server = Server(Settings(port=0, auth=auth, channels={"orders": rule, "price": rule}))
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/"
        now = time.time()
        cookie = token({"sub": "ann", "iat": now, "exp": now + 600})
        await page.context.add_cookies([{"name": "session", "value": cookie, "url": url, "sameSite": "Strict"}])
        send = """
        async ([channel, body]) => (await fetch(`/v1/channels/${channel}`,
          { method: "POST", body, headers: { "Content-Type": "text/html" } })).status
        """
        for name, channel, selector in ("sse.html", "orders", "#orders b"), ("ws.html", "price", "#price b"):
            await show(page, url, name)
            assert 201 == await page.evaluate(send, [channel, '<p id="price"><b>hello</b></p>'])
            await has(page, selector, "hello")
            await page.unroute("**/htmx.js")
    finally:
        await server.stop(0)
