"""The JavaScript of the docs, as a reader pastes it into a page of the server: each program hears what is published.

A block that names the server's client or one of its channels is such a program; of one that shows a change, what stands
after `// after`. What it leaves to the application, as `show`, is noted here. The tutorial's page is used by a person.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.docs_rig import SERVER, Block, blocks, busy, name, pages

if TYPE_CHECKING:
    from tests.web.conftest import Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

AFTER = "// after\n"
NAMES = ("oncecast.js", "/v1/channels/", "/v1/connect")
PAGE = "<!doctype html><link rel=icon href=data:,><body></body>"
# What the programs call, and where they print.
APPLICATION = """
  globalThis.heard = [];
  for (const name of ["show", "tick", "reload", "reloadEverything", "giveUp"])
    globalThis[name] = (...given) => heard.push([name, ...given]);
  console.log = (...given) => heard.push(["show", ...given]);
  globalThis.token = "none";
"""
# These need more than a page: a token that a server has checked, or a build.
ELSEWHERE = {"docs/how-to/authenticate.md"}


def programs() -> list[tuple[str, Block]]:
    """Return the blocks that are programs, each with its place."""
    return [
        (f"{name(page)}:{block.line}", block)
        for page in pages()
        for block in blocks(page)
        if block.language == "js" and not block.mark and name(page) not in ELSEWHERE
        if name(page).startswith(("README", "docs/")) and any(each in block.text for each in NAMES)
    ]


PROGRAMS = programs()


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[Server]:
    """A server on whose channels something is published all the time, with and without events."""
    server = Server(Settings(port=0))
    await server.start()
    try:
        async with busy(server):
            yield server
    finally:
        await server.stop(0)


async def blank(visit: Visiting, server: Server, text: str) -> Visit:
    """Return a page of the reader's own, of the server's origin and without a policy about scripts."""
    page = await visit(f"http://127.0.0.1:{server.port}/healthz")
    await page.page.set_content(text)
    return page


@pytest.mark.parametrize("text", [pytest.param(block.text, id=place) for place, block in PROGRAMS])
async def test_a_program_hears(text: str, server: Server, visit: Visiting) -> None:
    """It shows a message, and nothing of it fails; one that publishes goes on after that."""
    text = text.rpartition(AFTER)[2].replace(SERVER, f"127.0.0.1:{server.port}").replace("/rt/", "/")
    page = await blank(visit, server, PAGE)
    await page.page.evaluate(f"() => {{ {APPLICATION} }}")
    await page.page.add_script_tag(type="module", content=text)
    await page.until("() => heard.some(([name, first]) => name === 'show' && first !== undefined)")
    if "tick();" in text:
        await page.until("() => heard.some(([name]) => name === 'tick')")
    names = await page.page.evaluate("() => [...new Set(heard.map(([name]) => name))]")
    assert {*names} <= {"show", "tick"}


async def test_there_are_programs() -> None:
    """The pages that people paste from are among them."""
    pages = {place.partition(":")[0] for place, _ in PROGRAMS}
    assert {"README.md", "docs/how-to/listen.md", "docs/reference/javascript.md"} <= pages
    assert 11 <= len(PROGRAMS)


async def test_the_tutorials_page(server: Server, visit: Visiting) -> None:
    """Two people who open it read what one of them says."""
    (text,) = [
        block.text
        for page in pages()
        for block in blocks(page)
        if name(page) == "docs/tutorial.md" and block.language == "html"
    ]
    people = []
    for _ in range(2):
        people.append(await blank(visit, server, text.replace(SERVER, f"127.0.0.1:{server.port}")))
    await people[0].page.fill("#text", "hello, all")
    await people[0].page.click("button")
    for page in people:
        await page.until("() => [...document.querySelectorAll('li')].some((line) => line.textContent === 'hello, all')")
