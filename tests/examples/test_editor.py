"""The editor: several people in one text, which is the same for all in the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAVED = "() => document.getElementById('saved').textContent === 'Saved'"
NOTHING = "AAA="  # an update of Yjs that changes nothing, in base64
WHOLE = 500  # changes after which a page publishes the whole text: page/history.js


async def write(visit: Visit, key: str, text: str) -> None:
    """Write where a key leads to, such as the end of the text."""
    await visit.page.focus("#text")
    await visit.page.keyboard.press(key)
    await visit.page.keyboard.type(text)


async def shows(visit: Visit, text: str) -> None:
    """Wait until a page has this text."""
    await visit.until("(text) => document.getElementById('text').value === text", text)


async def test_two_write_at_once_and_without_a_network_and_a_third_comes_late(
    demo: Demonstrating, meet: Meeting
) -> None:
    """Nothing is missing or there twice: after a cut, for who comes late, and after the server has lost its log."""
    server = await demo("editor")
    ann, ben = await meet(server.url), await meet(server.url)
    await write(ann, "Control+End", "middle 🍎\n")
    await shows(ben, "middle 🍎\n")
    await ann.page.context.set_offline(True)
    await write(ann, "Control+Home", "first\n")
    await write(ben, "Control+End", "last")
    await ben.until(SAVED)
    assert "first\nmiddle 🍎\n" == await ann.page.input_value("#text")
    assert "middle 🍎\nlast" == await ben.page.input_value("#text")
    await ann.page.context.set_offline(False)
    for page in (ann, ben):
        await shows(page, "first\nmiddle 🍎\nlast")
        await page.until(SAVED)
    assert len("first\n") == await ann.page.evaluate("document.getElementById('text').selectionStart")
    late = await meet(server.url)
    await shows(late, "first\nmiddle 🍎\nlast")
    await server.kill()
    await server.start()
    for page in (ann, ben, late):
        await page.page.evaluate("dispatchEvent(new Event('online'))")  # it ends the pause before the next try
    await write(ben, "Control+End", "!")
    for page in (ann, late, await meet(server.url)):
        await shows(page, "first\nmiddle 🍎\nlast!")


async def test_the_whole_text_is_published_once_after_many_changes(demo: Demonstrating, meet: Meeting) -> None:
    """So the oldest changes may go. A message that is no update is refused."""
    server = await demo("editor")
    ann = await meet(server.url)
    url = f"{server.url}rt/v1/channels/text"
    line = json.dumps({"channel": "text", "data64": NOTHING})
    lines = "\n".join([line] * WHOLE)
    answer = await ann.page.context.request.post(f"{server.url}rt/v1/publish", data=lines)
    assert 200 == answer.status
    await ann.until("(count) => Number(document.getElementById('changes').textContent) >= count", WHOLE)
    await write(ann, "Control+End", "a")
    await ann.until(SAVED)
    await write(ann, "Control+End", "b")
    await ann.until(SAVED)
    answer = await ann.page.context.request.get(f"{url}?last=10")
    events = [message["event"] for message in (await answer.json())["messages"]]
    assert [None, "whole", None] == events[-3:]
    refused = await ann.page.context.request.post(url, data={"no": "bytes"})
    assert 400 == refused.status
