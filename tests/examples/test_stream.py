"""The stream: an answer is the same on two devices, whatever reloads and cuts there are while it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.stream.words import text_of

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = "Is <b>this</b> & that safe?"
WORDS = "(count) => document.querySelectorAll('#text span').length >= count"
STATE = "(state) => document.querySelector('#answer').dataset.state === state"
ALL = len(text_of(QUESTION).split(" "))


async def ask(person: Visit) -> None:
    """Ask, and wait for the first words."""
    await person.page.fill("#question", QUESTION)
    await person.page.press("#question", "Enter")
    await person.until(WORDS, 5)


async def test_a_reload_a_second_device_and_a_cut(demo: Demonstrating, meet: Meeting) -> None:
    """Each of them happens while the answer is written."""
    server = await demo("stream", STREAM_PAUSE="0.03")
    first = await meet(server.url, live=False)
    await ask(first)
    await first.page.reload()
    await first.until(WORDS, 6)
    second = await meet(first.page.url)
    await second.until(WORDS, 10)
    await second.page.context.set_offline(True)
    before = await second.page.locator("#text span").count()
    await first.until(WORDS, before + 20)
    assert "writing" == await first.page.get_attribute("#answer", "data-state")
    await second.page.context.set_offline(False)
    for person in (first, second):
        await person.until(STATE, "done")
        assert text_of(QUESTION) == await person.page.text_content("#text")
        assert str(ALL) == await person.page.inner_text("#words")
    await first.page.reload()  # all of it is kept by the page now
    assert text_of(QUESTION) == await first.page.text_content("#text")


async def test_an_answer_that_the_server_has_lost(demo: Demonstrating, meet: Meeting) -> None:
    """After a restart, with a log in memory, the page says that words are missing, and keeps those that it has."""
    server = await demo("stream", STREAM_PAUSE="0.2")
    person = await meet(server.url, live=False)
    await ask(person)
    await server.kill()
    await server.start()
    await person.until("() => !document.querySelector('#gap').hidden")
    shown = await person.page.text_content("#text")
    assert shown
    assert text_of(QUESTION).startswith(shown)
