"""The dashboard: the samples before a page came are there, and those of a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What the page draws: the module is the one that runs.
IDS = "async () => (await import('./main.js')).samples.map(({ id }) => id)"
HAS = f"async (count) => (await ({IDS})()).length >= count"
HAS_ID = f"async (id) => (await ({IDS})()).includes(id)"


async def ids_of(visit: Visit) -> list[str]:
    """Return the ids of the samples that a page draws."""
    return list(await visit.page.evaluate(IDS))


def check(ids: list[str]) -> None:
    """Check that these are all samples from the first one on, each once."""
    assert list(range(1, len(ids) + 1)) == [int(each.rpartition("-")[2]) for each in ids]


async def test_the_charts_have_what_was_before_the_page_and_during_a_cut(demo: Demonstrating, meet: Meeting) -> None:
    """A page that comes later, and one that was cut off, draw each sample from the first on, and none twice."""
    server = await demo("dashboard", DASHBOARD_SECONDS="0.1")
    ann = await meet(server.url)
    await ann.until(HAS, 5)
    ben = await meet(server.url)
    await ben.until(HAS, len(await ids_of(ann)))
    await ann.page.context.set_offline(True)
    await ann.until("() => document.getElementById('state').dataset.state !== 'live'")
    before = await ids_of(ann)
    await ben.until(HAS, len(before) + 8)
    assert before == await ids_of(ann)
    away = (await ids_of(ben))[-1]
    await ann.page.context.set_offline(False)
    await ann.until(HAS_ID, away)
    for page in (ann, ben):
        check(await ids_of(page))
    await ann.until(
        "() => document.getElementById('counts').textContent.includes('caught up after a cut')"
    )  # as it draws
    assert 4 == await ann.page.locator(".plot svg:has(.area)").count()
    await ann.page.focus("#back")
    await ann.page.keyboard.press("Home")
    await ann.until("() => document.getElementById('at').textContent.endsWith('s ago')")
    assert 4 == await ann.page.locator(".plot .cross").count()
