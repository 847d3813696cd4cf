"""The operator's page in a real browser: its figures, a channel's log, publishes into it, and the key."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Dialog

from oncecast.policy.server_keys import hash_line, make_key

if TYPE_CHECKING:
    from tests.web.conftest import ServerProcess, Serving, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = make_key(bytes(32))
SHOWN = "(text) => document.querySelector('#messages').textContent.includes(text)"
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


async def test_a_channel_is_browsed_searched_and_published_into(server: ServerProcess, visit: Visiting) -> None:
    """The channels are listed; one is opened, followed live, searched, and published into, as text alone."""
    operator = await visit(f"{server.url}admin", viewport={"width": 390, "height": 844})
    page = operator.page
    await page.get_by_role("button", name="demo.machine", exact=True).click()
    await operator.until("() => document.querySelectorAll('#messages li').length > 2")
    await page.get_by_label("Channel", exact=True).fill("ops.test")
    await page.get_by_role("button", name="Read").click()
    await operator.until("() => document.querySelector('#log-state').textContent.includes('followed live')")
    for text in ("<b>one</b>", '{"two": 2}'):
        await page.get_by_label("Publish text or JSON").fill(text)
        await page.get_by_role("button", name="Publish").click()
        await operator.until(SHOWN, text.replace(" ", ""))
    assert 0 == await page.locator("#messages b").count()
    await page.get_by_label("Search").fill("TWO")
    assert 1 == await page.locator("#messages li:visible").count()
    await page.get_by_role("button", name="ops.test", exact=True).wait_for()
    who = "() => document.querySelector('#listeners tbody').textContent"
    await operator.until(f"{who}.includes('without a tokenlong-poll127.0.0.1')")  # this page itself
    operator.expect_problems("status of 400")
    await page.get_by_label("Channel", exact=True).fill("no such name")
    await page.get_by_role("button", name="Read").click()
    await operator.until("() => document.querySelector('#listening').hidden")
    assert await page.locator("#status").is_hidden()
    assert not await page.evaluate(OVERFLOWS)


async def test_a_log_is_read_from_a_time_on(server: ServerProcess, visit: Visiting) -> None:
    """Page by page, the newest first, until its end is there."""
    lines = b"".join(b'{"channel":"ops.long","data":%d}\n' % number for number in range(1200))
    status, _ = await asyncio.to_thread(post, f"{server.url}v1/publish", lines)
    assert 200 == status
    operator = await visit(f"{server.url}admin")
    page = operator.page
    await page.get_by_label("Channel", exact=True).fill("ops.long")
    await page.get_by_label("follow live").uncheck()
    await page.get_by_label("or since").fill("2020-01-31T12:00:00")
    await page.get_by_role("button", name="Read", exact=True).click()
    shown = "(newest) => document.querySelector('#messages li .body')?.textContent === newest"
    await operator.until(shown, "999")
    await page.get_by_role("button", name="Read on after these").click()
    await operator.until(shown, "1199")
    assert "200" == await page.locator("#messages li .body").last.text_content()  # 1000 are kept on the page
    await page.get_by_role("button", name="Read on after these").click()
    await operator.until("() => document.querySelector('#more').hidden")
    assert "1199" == await page.locator("#messages li .body").first.text_content()


def post(url: str, body: bytes) -> tuple[int, bytes]:
    """Publish a batch."""
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        return answer.status, answer.read()


async def test_the_key_opens_it(serving: Serving, visit: Visiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with keys shows nothing until one is typed; it is kept for the tab, and forgotten when asked."""
    monkeypatch.setenv("ONCECAST_AUTH__SERVER_KEYS", hash_line("ops", KEY))
    locked = await serving()
    operator = await visit(f"{locked.url}admin")
    operator.expect_problems("status of 401")
    page = operator.page
    await page.get_by_label("A key of the setting").fill(KEY)
    assert await page.locator("#view").is_hidden()
    await page.get_by_role("button", name="Open").click()
    await page.get_by_role("heading", name="Channels").wait_for()
    assert KEY not in await page.content()
    await operator.until("() => document.querySelector('#refusals tbody').textContent.includes('unauthorized')")
    await page.get_by_role("button", name="Forget the key").click()
    await page.get_by_role("button", name="Open").wait_for()
    assert await page.evaluate("() => sessionStorage.length === 0 && localStorage.length === 0")


async def test_a_node_is_drained(serving: Serving, visit: Visiting) -> None:
    """The button asks first, and does nothing where the answer is no; the server then ends."""
    server = await serving("--dev")
    operator = await visit(f"{server.url}admin")
    operator.expect_problems("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
    page = operator.page
    await page.get_by_role("heading", name="Channels").wait_for()
    answers = [False, True]

    async def decide(dialog: Dialog) -> None:
        await (dialog.accept() if answers.pop(0) else dialog.dismiss())

    page.on("dialog", decide)
    drain = page.get_by_role("button", name="Drain")
    await drain.click()
    assert "" == await page.locator("#drain-result").text_content()
    await drain.click()
    await operator.until("() => document.querySelector('#drain-result').textContent === 'The node drains, and ends.'")
    await operator.until("() => document.querySelector('#status').textContent.includes('does not answer')")
