"""The page /compare in a real browser: what its four lanes show, count and explain, and that a cut loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Route

    from tests.web.conftest import ServerProcess, Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = ("short-poll", "long-poll", "sse", "websocket")
WIDTHS = (360, 768, 1440)

# Whether each lane has heard this number of messages, without a fault.
HEARD = """(least) => [...document.querySelectorAll("[data-lane]")].every((lane) => {
  const said = lane.querySelector("[data-field=integrity]");
  return said.dataset.sound === "true" && parseInt(said.textContent) >= least;
})"""

# The text of a cell of the table.
FIGURE = "([kind, name]) => document.querySelector(`tr[data-pen=${kind}] [data-figure=${name}]`).textContent"


async def slide(visit: Visit, name: str, place: int) -> None:
    """Move a slider to one of its places, from the left."""
    await visit.page.eval_on_selector(
        f"[name={name}]",
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }",
        place,
    )


async def figure(visit: Visit, kind: str, name: str) -> str:
    """Return what the table says."""
    said: str = await visit.page.evaluate(FIGURE, [kind, name])
    return said


async def test_four_lanes(server: ServerProcess, visit: Visiting) -> None:
    """Each lane hears each message once. Polls without a message are counted, and what each way costs is said."""
    page = await visit(f"{server.url}compare")
    await slide(page, "interval", 0)
    await page.until(HEARD, 3)
    assert "caught up" not in await page.page.inner_text("#lanes")  # nothing was cut
    await page.until(
        "() => Number(document.querySelector('tr[data-pen=short-poll] [data-figure=empty]').textContent) > 2"
    )
    await page.until("() => /short polling asked \\d+ times/.test(document.querySelector('#verdict').textContent)")
    assert ["0", "0"] == [await figure(page, kind, "empty") for kind in ("sse", "websocket")]
    assert ["1", "1"] == [await figure(page, kind, "connections") for kind in ("sse", "websocket")]
    assert " B" in await figure(page, "websocket", "down")
    drawn = """() => [...document.querySelectorAll("canvas")].every((canvas) =>
      canvas.width > 300 && canvas.getAttribute("aria-label").includes("none missing"))"""
    await page.until(drawn)


async def test_a_cut_is_caught_up(server: ServerProcess, visit: Visiting) -> None:
    """Publishing goes on while the four are cut. Then each catches up, in order and without a repetition."""
    page = await visit(f"{server.url}compare")
    await slide(page, "rate", 4)
    await page.until(HEARD, 2)
    await page.page.click("[data-action=cut]")
    for kind in KINDS:
        await page.page.wait_for_selector(f"[data-lane={kind}][data-state=cut]")
    await page.until("() => document.querySelector('#announcer').textContent.startsWith('All four have caught up')")
    for said in await page.page.eval_on_selector_all(
        "[data-field=integrity]", "(all) => all.map((e) => e.textContent)"
    ):
        assert "none missing, none twice; " in said
        assert "caught up after a cut" in said


async def test_what_goes_over_the_wire(server: ServerProcess, visit: Visiting) -> None:
    """A lane explains its requests, events and frames in their bytes; text that is held stands still."""
    page = await visit(f"{server.url}compare")
    for summary in await page.page.query_selector_all(".wire summary"):
        await summary.click()
    await page.until(HEARD, 1)
    shown = {
        "short-poll": ("GET /v1/channels/demo.compare.", "HTTP/1.1 200", "after its cursor"),
        "long-poll": ("wait=25", "HTTP/1.1 200"),
        "sse": ("Accept: text/event-stream", "id: ", "data: {"),
        "websocket": ("Sec-WebSocket-Version: 13", "101 Switching Protocols", '"type":"message"', "opcode", "RFC 6455"),
    }
    has = "([kind, text]) => document.querySelector(`[data-lane=${kind}] .wire`).textContent.includes(text)"
    for kind, texts in shown.items():
        for text in texts:
            await page.until(has, [kind, text])
    await page.page.click("[data-lane=websocket] [data-action=hold]")
    held = await page.page.inner_text("[data-lane=websocket] .parts")
    await page.until(HEARD, 4)
    assert held == await page.page.inner_text("[data-lane=websocket] .parts")


async def test_distance(server: ServerProcess, visit: Visiting) -> None:
    """What comes on a stream comes later by the distance; the order of the messages stays."""
    page = await visit(f"{server.url}compare")
    await slide(page, "distance", 5)
    await slide(page, "rate", 5)
    await page.until(HEARD, 5)
    await slide(page, "distance", 0)
    await page.until(HEARD, 15)
    longest = (
        "(kind) => parseFloat(document.querySelector(`tr[data-pen=${kind}] [data-figure=max]`).textContent) >= 0.2"
    )
    assert (await figure(page, "sse", "max")).endswith((" ms", " s"))
    assert await page.page.evaluate(longest, "sse")


async def test_a_publish_that_is_refused_is_said(server: ServerProcess, visit: Visiting) -> None:
    """The page says why it can't publish, and what to do; it goes on once it may."""
    page = await visit("about:blank")
    refused = {"error": {"code": "forbidden", "message": "Only a server may publish here."}}

    async def refuse(route: Route) -> None:
        if route.request.method == "POST":
            await route.fulfill(status=403, json=refused)
        else:
            await route.continue_()

    page.expect_problems("the server responded with a status of 403")
    await page.page.route("**/v1/channels/**", refuse)
    await page.page.goto(f"{server.url}compare")
    await page.until("() => document.querySelector('#quiet').textContent.includes('Only a server may publish here.')")
    assert "oncecast serve --dev" in await page.page.inner_text("#quiet")
    await page.page.unroute_all()
    await page.until(HEARD, 1)
    assert await page.page.is_hidden("#quiet")


async def test_any_width(server: ServerProcess, visit: Visiting) -> None:
    """Nothing is wider than the window, and the start page leads here."""
    page = await visit(server.url)
    await page.page.click("nav >> text=Compare")
    await page.until(HEARD, 1)
    needed = []
    for width in WIDTHS:
        await page.page.set_viewport_size({"width": width, "height": 900})
        needed.append(await page.page.evaluate("() => document.documentElement.scrollWidth"))
    assert WIDTHS == tuple(needed)
