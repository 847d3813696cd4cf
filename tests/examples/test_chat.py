"""The chat: what one says the other sees, in its room, and after a cut nothing is missing or repeated."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import TimeoutError as PageTimeoutError

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = "() => [...document.querySelectorAll('#messages .text')].map((row) => row.textContent)"


async def say(person: Visit, text: str) -> None:
    """Write a message and send it."""
    await person.page.fill("#text", text)
    await person.page.press("#text", "Enter")


async def types_until(person: Visit, other: Visit, condition: str) -> None:
    """Type one letter after the other, as people do: a note of it that comes before the other listens is not kept."""
    for _ in range(10):
        await person.page.press("#text", "h")
        with contextlib.suppress(PageTimeoutError):
            await other.page.wait_for_function(condition, timeout=2_000)  # a note is shown for three seconds
            return
    await other.until(condition)


async def has(person: Visit, *texts: str) -> None:
    """Wait until a person sees as many messages, and compare them."""
    await person.until("(count) => document.querySelectorAll('#messages .text').length >= count", len(texts))
    assert list(texts) == await person.page.evaluate(TEXTS)


async def test_two_people(demo: Demonstrating, meet: Meeting) -> None:
    """Ann and Ben talk; Ben's network goes away; then he comes back, and in the end reloads the page."""
    server = await demo("chat")
    ann, ben = await meet(server.url), await meet(server.url)
    await ann.page.fill("#name", "Ann <b>")
    await types_until(ann, ben, "() => document.querySelector('#typing').textContent === 'Ann <b> is typing…'")
    await say(ann, "<i>hello</i>")
    await has(ben, "<i>hello</i>")
    await ben.until("() => document.querySelector('#typing').textContent === ''")
    assert ["Ann <b>"] == await ben.page.locator("#messages b").all_text_contents()

    await ben.page.context.set_offline(True)
    await say(ben, "from the tunnel")  # sent once the network is back
    for text in ("one", "two"):
        await say(ann, text)
    await has(ann, "<i>hello</i>", "one", "two")
    await ben.page.context.set_offline(False)
    everything = ("<i>hello</i>", "one", "two", "from the tunnel")
    await has(ann, *everything)
    await has(ben, *everything)

    await ann.page.click("#rooms button >> text=kitchen")
    await has(ann)
    await say(ann, "tea?")
    await ben.until("() => document.querySelector('.unread:not([hidden])')?.textContent === '1'")
    await ben.page.reload()
    await has(ben, *everything)  # the room's history
    await ben.page.click("#rooms button >> text=kitchen")
    await has(ben, "tea?")


async def test_what_the_server_refuses(demo: Demonstrating, meet: Meeting) -> None:
    """A message without a name is refused with a reason that the page shows, and the text is not lost."""
    person = await meet((await demo("chat")).url)
    person.expect_problems("403")
    await person.page.fill("#name", " ")
    await say(person, "anonymous")
    await person.until("() => document.querySelector('#outcome').textContent === 'Not sent: Give a name.'")
    assert "anonymous" == await person.page.input_value("#text")
