"""What HTTP/2 changes, behind Debian's nginx: the streams that a browser may have, and the bytes of a poll.

Chromium opens a number of tabs on one site, each with an `EventSource` and then each with a WebSocket, and counts which
of them open and whether another request is answered. curl polls on one connection of each protocol, over TLS, through a
pipe that counts. nginx runs on the file of `deploy/proxies`; its plain port speaks HTTP/1.1, its port of TLS both.

    python -m tests.proof.tabs [--tabs N]
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import BrowserContext, Page, async_playwright

from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.brokers.certificates import Authority
from tests.compare.recorder import Recorder
from tests.proxies.programs import PROGRAMS, Site, running, site_of
from tests.web.conftest import ARGUMENTS, PATIENCE_MS

__all__ = ["Opened", "bytes_of_a_poll", "main", "opened_tabs"]

TABS = 7  # one more than the six connections that browsers open to a host over HTTP/1.1
QUIET_SECONDS = 5.0  # without another stream that opens, until no more will; and for a further request's answer
LOOK_MS = 100
POLLS = 50
SECONDS = 60.0

OPEN_STREAM = """(kind) => {
  const path = "/v1/channels/tabs";
  window.opened = false;
  const socket = new URL(path, location).href.replace("http", "ws");
  const target = kind === "sse" ? new EventSource(path) : new WebSocket(socket);
  target.onopen = () => { window.opened = true; };
  window.target = target;
}"""
ASK = """async (limit) => {
  try {
    return (await fetch("/healthz", { signal: AbortSignal.timeout(limit) })).ok;
  } catch {
    return false;
  }
}"""


@dataclass(frozen=True, slots=True)
class Opened:
    """Of `tabs` tabs with a stream each: how many streams opened, and whether a further request was answered."""

    kind: str
    protocol: str
    tabs: int
    streams: int
    answered: bool


async def opened_tabs(site: Site, tabs: int, kinds: Sequence[str] = ("sse", "websocket")) -> list[Opened]:
    """Open tabs with a stream each, over both protocols and of each of these kinds."""
    found = []
    chromium = shutil.which("chromium")
    assert chromium is not None, "there is no chromium on the PATH: run scripts/system-packages"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, timeout=2 * PATIENCE_MS)
        for url in (f"http://localhost:{site.plain}", f"https://localhost:{site.secure}"):
            for kind in kinds:
                context = await browser.new_context(ignore_https_errors=True)
                found.append(await _opened(context, url, kind, tabs))
                await context.close()
        await browser.close()
    return found


async def _opened(context: BrowserContext, url: str, kind: str, tabs: int) -> Opened:
    pages: list[Page] = []
    for _ in range(tabs):
        page = await context.new_page()
        await page.goto(f"{url}/healthz", timeout=PATIENCE_MS)
        pages.append(page)
    protocol = await pages[0].evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    for page in pages:
        await page.evaluate(OPEN_STREAM, kind)
    opened, since = 0, time.monotonic()
    while opened < tabs and time.monotonic() - since < QUIET_SECONDS:
        await pages[0].wait_for_timeout(LOOK_MS)
        before, opened = opened, sum([await page.evaluate("window.opened") for page in pages])
        since = since if opened == before else time.monotonic()
    answered = await pages[-1].evaluate(ASK, QUIET_SECONDS * 1000)
    return Opened(kind, protocol, tabs, opened, answered)


async def bytes_of_a_poll(site: Site, protocol: str) -> tuple[float, float]:
    """Return the bytes up and down of an empty poll on a connection that is open; `protocol` is an option of curl."""
    few, many = [await _polled(site, protocol, count) for count in (POLLS, 2 * POLLS)]
    return (many[0] - few[0]) / POLLS, (many[1] - few[1]) / POLLS


async def _polled(site: Site, protocol: str, count: int) -> tuple[int, int]:
    """Poll this many times on one connection; return the bytes of all of it."""
    async with Recorder(site.secure) as recorder:
        url = f"https://localhost:{recorder.port}/v1/channels/tabs?after=latest"
        each = [word for n in range(count) for word in ("--output", "/dev/null", f"{url}&limit={n % 9 + 1}")]
        process = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--fail", "--insecure", f"--{protocol}", *each), stdout=asyncio.subprocess.DEVNULL
        )
        status = await asyncio.wait_for(process.wait(), SECONDS)
        assert status == 0, f"curl ended with {status}"
        return len(recorder.up), len(recorder.down)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _prove(tabs: int, folder: Path) -> None:
    pair = Authority(folder, "authority").issue("localhost")
    server = Server(Settings(port=0, broker="memory://"))
    await server.start()
    try:
        program = PROGRAMS["nginx"]
        site = site_of(folder / "nginx", [server.port] * 3, pair)
        with running(program, program.fitted(site), site):
            say(f"| {tabs} tabs, each with | protocol | streams that opened | a further request |")
            say("| --- | --- | ---: | --- |")
            for each in await opened_tabs(site, tabs):
                title = {"sse": "an EventSource", "websocket": "a WebSocket"}[each.kind]
                answer = "answered" if each.answered else f"no answer in {QUIET_SECONDS:g} s"
                say(f"| {title} | {each.protocol} | {each.streams} of {each.tabs} | {answer} |")
            say("")
            say("| an empty poll over TLS | bytes up | bytes down |")
            say("| --- | ---: | ---: |")
            for protocol in ("http1.1", "http2"):
                up, down = await bytes_of_a_poll(site, protocol)
                say(f"| {protocol} | {up:.0f} | {down:.0f} |")
    finally:
        await server.stop(0)


def main(arguments: Sequence[str]) -> int:
    """Run the proof; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.tabs")
    parser.add_argument("--tabs", type=int, default=TABS, choices=range(1, 33), metavar="N")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # nginx's workers read it
        asyncio.run(_prove(options.tabs, Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
