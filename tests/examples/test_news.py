"""The news: what is in the log is in the feed, over a restart of the server too."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.web.conftest import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANNELS = "rt/v1/channels/news.city,news.science,news.sport,news.weather"
ARCHIVE = 60  # items of a new log
CUT = "() => document.getElementById('state').dataset.state === 'waiting'"
TITLED = "(title) => [...document.querySelectorAll('#feed h3')].some((each) => each.textContent === title)"
IDS = "() => [...document.querySelectorAll('#feed li')].map((item) => item.dataset.id).reverse()"


async def log_of(url: str, count: int) -> list[str]:
    """Wait until the log has so many messages; return their ids."""
    ids: list[str] = []
    cursor = "earliest"
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http, asyncio.timeout(PATIENCE_SECONDS):
        while len(ids) < count:
            answer = await http.get(f"{url}{CHANNELS}", params={"after": cursor, "wait": 20})
            ids += [message["id"] for message in answer.raise_for_status().json()["messages"]]
            cursor = answer.json()["cursor"]
    return ids


async def publish(url: str, channel: str, title: str) -> httpx.Response:
    """Publish as a client."""
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http:
        return await http.post(f"{url}rt/v1/channels/{channel}", json={"title": title})


async def write(visit: Visit, title: str) -> None:
    """Publish by the form of the page."""
    await visit.page.fill("#title", title)
    await visit.page.click("#write button")


async def test_the_feed_goes_on_after_a_restart_of_the_server(
    demo: Demonstrating, meet: Meeting, tmp_path: Path
) -> None:
    """What one writes the other reads; after a restart, the feed of each is the end of the log: nothing twice."""
    server = await demo("news", NEWS_SECONDS="0", ONCECAST_BROKER=f"sqlite:///{tmp_path}/news.db")
    await log_of(server.url, ARCHIVE)
    ann, ben = await meet(server.url), await meet(server.url)
    await write(ann, "<b>Bold</b> & brief")
    await ben.until(TITLED, "<b>Bold</b> & brief")
    await server.stop()
    for page in (ann, ben):
        await page.until(CUT)
    await server.start()
    assert 201 == (await publish(server.url, "news.sport", "Soon after")).status_code
    await write(ben, "By ben")
    log = await log_of(server.url, ARCHIVE + 3)
    for page in (ann, ben):
        for title in ("Soon after", "By ben"):
            await page.until(TITLED, title)
        assert log[-12 - 3 :] == await page.page.evaluate(IDS)
    await ann.page.click("#older")
    await ann.until("() => document.querySelectorAll('#feed li').length === 27")
    assert log[-12 - 3 - 12 :] == await ann.page.evaluate(IDS)


async def test_only_items_are_taken(demo: Demonstrating, tmp_path: Path) -> None:
    """A category that does not exist, and a title that is too long, are refused with what to do instead."""
    server = await demo("news", NEWS_SECONDS="0", ONCECAST_BROKER=f"sqlite:///{tmp_path}/news.db")
    for channel, title, reason in (
        ("news.gossip", "Somebody said something", "There is no such category"),
        ("news.city", "x" * 141, "a title of 1 to 140 characters"),
    ):
        answer = await publish(server.url, channel, title)
        assert 403 == answer.status_code
        assert reason in answer.text
