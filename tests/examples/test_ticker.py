"""The ticker: two pages show the same prices, a slow one skips old ones, and a cut leaves nothing wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

SYMBOL = "NOMI"
WATCH = """() => {
  window.seen = [];
  const text = (selector) => document.querySelector(selector).textContent;
  const row = () => [text("#rows td"), text("#rows td:nth-child(2)")];
  const note = () => seen.push([Number(text("#tick")), ...row(), Number(text("#skipped"))]);
  new MutationObserver(note).observe(document.querySelector("#tick"), { childList: true });
}"""
ENOUGH = "(count) => window.seen.length >= count"


async def watch(person: Visit, pause: str) -> None:
    """Note each tick that a page shows, with the price of one symbol and the ticks that were skipped until then."""
    await person.page.select_option("#pause", pause)
    await person.page.fill("#search", SYMBOL)
    await person.until("() => document.querySelectorAll('#rows tr').length === 1")
    await person.page.evaluate(WATCH)


async def test_two_pages(demo: Demonstrating, meet: Meeting) -> None:
    """One is quick, and loses its network for a while; the other needs 0.3 s for what comes ten times a second."""
    server = await demo("ticker")
    quick, slow = await meet(server.url), await meet(server.url)
    await watch(quick, "0")
    await watch(slow, "300")
    await quick.until(ENOUGH, 5)
    await slow.until(ENOUGH, 4)
    await quick.page.context.set_offline(True)
    tick = int(await slow.page.inner_text("#tick"))
    await slow.until("(tick) => Number(document.querySelector('#tick').textContent) > tick + 5", tick)
    await quick.page.context.set_offline(False)
    await quick.until("(tick) => window.seen.at(-1)[0] > tick + 5", tick)
    shared = "(ticks) => window.seen.filter(([tick]) => ticks.includes(tick)).length >= 2"
    await quick.until(shared, [each[0] for each in await slow.page.evaluate("() => window.seen")])

    pages = [await person.page.evaluate("() => window.seen") for person in (quick, slow)]
    for seen in pages:
        assert {SYMBOL} == {symbol for _, symbol, _, _ in seen}
        assert all(one[0] < two[0] for one, two in pairwise(seen))  # no tick twice, none after a newer one
        assert [two[0] - one[0] - 1 for one, two in pairwise(seen)] == [two[3] - one[3] for one, two in pairwise(seen)]
    prices = [{tick: price for tick, _, price, _ in seen} for seen in pages]
    both = prices[0].keys() & prices[1].keys()
    assert len(both) >= 2
    assert [] == [tick for tick in both if prices[0][tick] != prices[1][tick]]
    assert pages[1][-1][0] - pages[1][0][0] >= len(pages[1])  # the slow one has skipped ticks
