"""The scores: a page that joins has the present score, and then each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = """() => [...document.querySelectorAll('.match')].map((match) =>
  [match.dataset.channel, match.dataset.id, match.querySelector('.score').textContent])"""
HEARD = """() => [...document.querySelectorAll('#heard li')].reverse().map((line) =>
  [line.dataset.channel, line.dataset.id])"""
JOINED = "() => document.getElementById('joined').dataset.minute"
HAS_HEARD = "(count) => document.querySelectorAll('#heard li').length >= count"


async def log_of(url: str, channels: list[str]) -> list[dict[str, Any]]:
    """Return all messages of some channels, as the server has them."""
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}rt/v1/channels/{','.join(channels)}", params={"after": "earliest"})
        return list(answer.raise_for_status().json()["messages"])


async def check(page: Visit, url: str) -> None:
    """Check that each score is that of the log, and that no event is missing or repeated since the page has joined."""
    shown, heard = await page.page.evaluate(f"() => [({SHOWN})(), ({HEARD})()]")
    log = await log_of(url, [channel for channel, _, _ in shown])
    for channel, id_, score in shown:
        story = {each["id"]: each["data"]["score"] for each in log if each["channel"] == channel}
        assert score == " : ".join(map(str, story[id_]))
        here = [each for other, each in heard if other == channel]
        until = list(story)[: list(story).index(id_) + 1]
        assert here == until[len(until) - len(here) :]


async def test_a_page_has_the_present_scores_and_each_event_also_of_a_cut(demo: Demonstrating, meet: Meeting) -> None:
    """What happens while one page is cut off is on the other page at once, and on the first after its return."""
    server = await demo("scores", SCORES_MINUTE="0.4")
    ann = await meet(server.url)
    ben = await meet(server.url)
    for page in (ann, ben):
        await page.until(JOINED)
    await ann.until(HAS_HEARD, 1)
    await ann.page.context.set_offline(True)
    await ann.until("() => document.getElementById('state').dataset.state !== 'live'")
    before = await ann.page.evaluate(HEARD)
    await ben.until(HAS_HEARD, len(await ben.page.evaluate(HEARD)) + 2)
    assert before == await ann.page.evaluate(HEARD)
    _, away = (await ben.page.evaluate(HEARD))[-1]
    await ann.page.context.set_offline(False)
    await ann.until("(id) => document.querySelector(`#heard [data-id='${id}']`)", away)
    for page in (ann, ben):
        await check(page, server.url)
    await ann.page.click("summary")
    await ann.until("() => document.querySelector('.story li:last-child')?.dataset.kind === 'kick-off'")
