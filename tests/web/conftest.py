"""What the tests in a browser share: Debian's Chromium, a page that is watched, and a server in a process of its own.

One browser serves the whole session, on the session's event loop, so each test here runs on that loop too; each test
has a browser context of its own. Invariant: a `Visit` notes every console error, uncaught exception and violation of
the content security policy, and what a test does not call expected fails it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from playwright.async_api import TimeoutError as PageTimeoutError

PATIENCE_MS = 30_000  # for anything to happen in the page: generous, as the machine may be busy; nobody waits that long
PATIENCE_SECONDS = PATIENCE_MS / 1000

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)

VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""

Visiting = Callable[..., Awaitable["Visit"]]


@dataclass
class Visit:
    """A page that somebody looks at. `expected` are patterns of the problems that the test itself provokes."""

    page: Page
    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect_problems(self, *patterns: str) -> None:
        """Call the problems that match one of these patterns expected."""
        self.expected += patterns

    @property
    def unexpected(self) -> list[str]:
        """The problems that no pattern matches."""
        return [p for p in self.problems if not any(re.search(pattern, p) for pattern in self.expected)]

    async def until(self, condition: str, argument: object = None) -> None:
        """Wait until a function in the page's JavaScript returns something true; say what is shown if it never does."""
        try:
            await self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE_MS)
        except PageTimeoutError as error:
            error.add_note(f"Problems: {self.problems}. The page:\n{await self.page.inner_text('body')}")
            raise


class ServerProcess:
    """`oncecast serve` in a process of its own; `port` is known once it has started, and kept by the next start.

    `command` is another command that serves, and `environ` has variables for it.
    """

    def __init__(
        self, *flags: str, command: Sequence[str] = ("serve",), environ: Mapping[str, str] | None = None
    ) -> None:
        self.port = 0
        self._command = command
        self._environ = environ
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._errors: list[str] = []

    @property
    def url(self) -> str:
        """Where the start page is."""
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        command = (sys.executable, "-m", "oncecast", *self._command, "--port", str(self.port), *self._flags)
        pipe = asyncio.subprocess.PIPE
        environ = None if self._environ is None else {**os.environ, **self._environ}
        self._process = await asyncio.create_subprocess_exec(*command, stderr=pipe, env=environ)
        listening = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, listening))
        self.port = await asyncio.wait_for(listening, PATIENCE_SECONDS)

    async def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        await self._ended()

    async def stop(self) -> None:
        """End the process with SIGTERM, or with SIGKILL where that does not help."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._ended(), PATIENCE_SECONDS)
        except TimeoutError:
            await self.kill()
            raise

    async def _ended(self) -> None:
        assert self._process is not None
        assert self._reading is not None
        await self._process.wait()
        await self._reading

    async def _read(self, process: asyncio.subprocess.Process, listening: asyncio.Future[int]) -> None:
        """Read what the process says, so that its pipe is never full."""
        assert process.stderr is not None
        async for line in process.stderr:
            self._errors.append(line.decode())
            found = re.search(rb"listening on \S+:(\d+)", line)
            if found and not listening.done():
                listening.set_result(int(found[1]))
        if not listening.done():
            listening.set_exception(RuntimeError("the server did not start:\n" + "".join(self._errors)))


Serving = Callable[..., Awaitable[ServerProcess]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, headless."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("there is no chromium on the PATH: run scripts/system-packages, or apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS, timeout=2 * PATIENCE_MS, handle_sigint=False
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visiting]:
    """Open a URL in a new context, with the options of Playwright's `new_context`; check its problems at the end."""
    visits: list[Visit] = []
    async with contextlib.AsyncExitStack() as contexts:

        async def open_page(url: str, **options: Any) -> Visit:
            context = await browser.new_context(**options)
            contexts.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            await context.add_init_script(VIOLATIONS)
            visit = Visit(await context.new_page())
            visits.append(visit)
            visit.page.on(
                "console", lambda m: visit.problems.append(m.text) if m.type in ("error", "warning") else None
            )
            visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
            await visit.page.goto(url)
            return visit

        yield open_page
        unexpected = [problem for visit in visits for problem in visit.unexpected]
    assert [] == unexpected


@pytest_asyncio.fixture(loop_scope="session")
async def own_server() -> AsyncIterator[ServerProcess]:
    """A development server that the test may kill."""
    server = ServerProcess("--dev")
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[ServerProcess]:
    """A development server that all tests share, and none harms."""
    server = ServerProcess("--dev")
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def serving() -> AsyncIterator[Serving]:
    """Start servers with flags of one's own; they are stopped at the end of the test."""
    async with contextlib.AsyncExitStack() as servers:

        async def start(*flags: str) -> ServerProcess:
            server = ServerProcess(*flags)
            await server.start()
            servers.push_async_callback(server.stop)
            return server

        yield start
