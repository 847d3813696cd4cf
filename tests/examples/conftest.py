"""What the tests of the examples share: `oncecast demo NAME` in a process of its own, and people with a browser each.

A test of an example runs on the session's event loop: `pytestmark = pytest.mark.asyncio(loop_scope="session")`. It has
a server of its own, so it may kill it: `await server.kill()` and `await server.start()` are a restart at the same port.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from tests.web.conftest import ServerProcess, Visit, Visiting
from tests.web.conftest import browser as browser
from tests.web.conftest import visit as visit

CUT = ("ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_", "WebSocket connection to .* failed", "Failed to load resource")
LIVE = "() => document.querySelector('#state').dataset.state === 'live'"

Demonstrating = Callable[..., Awaitable[ServerProcess]]
Meeting = Callable[..., Awaitable[Visit]]


@pytest_asyncio.fixture(loop_scope="session")
async def demo() -> AsyncIterator[Demonstrating]:
    """Run an example by its name, with variables of the environment as keywords; it is stopped at the test's end."""
    async with contextlib.AsyncExitStack() as servers:

        async def start(name: str, **environ: str) -> ServerProcess:
            server = ServerProcess(command=("demo", name), environ=environ)
            servers.push_async_callback(server.stop)
            await server.start()
            return server

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def meet(visit: Visiting) -> Meeting:
    """Open a page in a browser context of its own, so that each call is another person, and wait until it is live.

    `live=False` is for a page that listens to nothing at first.

    What the console says of a network that is away is expected. `visit.page.context.set_offline(True)` cuts it.
    """

    async def open_page(url: str, *, live: bool = True, **options: object) -> Visit:
        person = await visit(url, **options)
        person.expect_problems(*CUT)
        if live:
            await person.until(LIVE)
        return person

    return open_page
