"""The applications that the matrix of obstacles is measured with: in Python, in Node and in a page of Chromium.

Each subscribes to the two channels from the beginning and reports its messages. Where tokens have a `life`, in seconds,
its function for tokens makes one of that life each time that it is asked. Invariant: `Heard` has them in order of
arrival at the application. To measure another client, write a function like these, and add it to `CLIENTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import oncecast
from oncecast import AsyncClient, Gap, Messages, Moved, Timing

from ..token_rig import SECRET, claims
from ..token_rig import token as signed

if TYPE_CHECKING:
    from playwright.async_api import Browser

__all__ = ["CHANNELS", "CLIENTS", "Heard", "Listen", "chromium", "node", "pages", "python"]

CHANNELS = ("news", "sport")
SCALED = {"answer", "idle", "wait", "attach", "proof", "probe", "grace"}  # the interval is slept, and so scaled there
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
WEB_CLIENT = Path(oncecast.__file__).parent / "web" / "client" / "index.js"


@dataclass(slots=True)
class Heard:
    """What an application has seen: the data of its messages, the reasons of its gaps, and the transports it came by.

    `began`, `first` and `moved` are when it subscribed, when its first message came, and when it last took another
    transport (`time.monotonic`).
    """

    began: float = 0.0
    first: float = 0.0
    moved: float = 0.0
    seen: list[int] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, kind: str, value: object = None) -> None:
        """Note what has happened: `began`, a `message`, a `gap`, or that the client has `moved`."""
        match kind, value:
            case "began", _:
                self.began = time.monotonic()
            case "message", int(number):
                self.first = self.first or time.monotonic()
                self.seen.append(number)
            case "gap", str(reason):
                self.gaps.append(reason)
            case "moved", str(transport):
                self.moved = time.monotonic()
                self.transports.append(transport)
            case _:
                raise AssertionError(f"the application says {kind} {value}")
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that is noted makes a condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


# The server's URL, what times are scaled by, and the life of each token, 0 for none.
Listen = Callable[[str, float, float], AbstractAsyncContextManager[Heard]]


# Python ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def python() -> AsyncGenerator[Listen, None]:
    """The Python client, in this process."""
    yield _python


@contextlib.asynccontextmanager
async def _python(url: str, scale: float, life: float) -> AsyncGenerator[Heard, None]:
    timing = Timing(idle=37.5)  # a number, so that it can be scaled
    timing = replace(timing, **{f.name: getattr(timing, f.name) * scale for f in fields(timing) if f.name in SCALED})

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds * scale)

    heard = Heard()

    def moved(move: Moved) -> None:
        heard.note("moved", move.after)

    def token() -> str:
        now = time.time()
        return signed(claims(iat=int(now), exp=now + life))

    async with AsyncClient(url, timing=timing, sleep=sleep, get_token=token if life else None) as client:
        heard.note("moved", client.transport)
        client.on("transport", moved)
        heard.note("began")
        listening = asyncio.create_task(_listen(client.subscribe(*CHANNELS, after="earliest"), heard))
        try:
            yield heard
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(messages: Messages, heard: Heard) -> None:
    async for item in messages.events():
        if isinstance(item, Gap):
            heard.note("gap", item.reason)
        else:
            heard.note("message", item.data)


# JavaScript ------------------------------------------------------------------------------------------------------

# What both do: `connect`, `base`, `scale`, `life` and `tell` are there.
_APPLICATION = f"""
const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
const encoded = (bytes) => base64(bytes).replace(/[+]/g, "-").replace(/[/]/g, "_").replace(/=/g, "");
async function getToken() {{
  const text = new TextEncoder();
  const parts = [{{ alg: "HS256" }}, {{ sub: "ann", exp: Date.now() / 1000 + life }}];
  const signed = parts.map((part) => encoded(text.encode(JSON.stringify(part)))).join(".");
  const algorithm = {{ name: "HMAC", hash: "SHA-256" }};
  const key = await crypto.subtle.importKey("raw", text.encode({json.dumps(SECRET)}), algorithm, false, ["sign"]);
  return `${{signed}}.${{encoded(new Uint8Array(await crypto.subtle.sign("HMAC", key, text.encode(signed))))}}`;
}}
const {{ timing }} = connect(base).connection.net;
const scaled = Object.fromEntries(Object.entries(timing).map(([name, value]) => [name, value * scale]));
const cast = connect(base, {{ timing: scaled, shareTabs: false, ...(life && {{ getToken }}) }});
cast.on("transport", ({{ to }}) => tell("moved", to));
tell("began", null);
for (const channel of {json.dumps(CHANNELS)}) {{
  const news = cast.subscribe(channel, {{ after: "earliest" }});
  news.on("message", ({{ data }}) => tell("message", data));
  news.on("gap", ({{ reason }}) => tell("gap", reason));
}}
"""

_NODE = f"""
const [, client, base, ...numbers] = process.argv;
const [scale, life] = numbers.map(Number);
const {{ connect }} = await import(client);
const tell = (kind, value) => console.log(JSON.stringify([kind, value]));
{_APPLICATION}
"""

_PAGE = f"""
async ([scale, life]) => {{
  const base = "/v1";
  const {{ connect }} = await import("/oncecast.js");
  {_APPLICATION}
}}
"""


@contextlib.asynccontextmanager
async def node() -> AsyncGenerator[Listen, None]:
    """The JavaScript client's modules in Node, 20.10 or newer, each in a process of its own."""
    yield _node


@contextlib.asynccontextmanager
async def _node(url: str, scale: float, life: float) -> AsyncGenerator[Heard, None]:
    # Node 20 has a WebSocket only with a flag.
    flags = ("--experimental-websocket", "--no-warnings", "--input-type=module")
    process = await asyncio.create_subprocess_exec(
        _program("node"),
        *(*flags, "-e", _NODE, "--", WEB_CLIENT.as_uri(), f"{url}/v1", str(scale), str(life)),
        stdout=asyncio.subprocess.PIPE,
    )
    heard = Heard()
    reading = asyncio.create_task(_read(process, heard))
    try:
        yield heard
    finally:
        process.kill()
        await process.wait()
        await reading


async def _read(process: asyncio.subprocess.Process, heard: Heard) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        heard.note(*json.loads(line))


@contextlib.asynccontextmanager
async def chromium() -> AsyncGenerator[Listen, None]:
    """What the server sends, in pages of Debian's Chromium. Needs Playwright."""
    from playwright.async_api import async_playwright  # for this client alone

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_program("chromium"), args=ARGUMENTS, handle_sigint=False
        )
        try:
            yield pages(browser)
        finally:
            await browser.close()


def pages(browser: Browser) -> Listen:
    """Return what listens in pages of a browser, each with a profile of its own."""

    @contextlib.asynccontextmanager
    async def listen(url: str, scale: float, life: float) -> AsyncGenerator[Heard, None]:
        context = await browser.new_context()
        heard = Heard()
        try:
            page = await context.new_page()
            await page.expose_function("tell", lambda kind, value: heard.note(kind, value))
            await page.goto(f"{url}/docs/errors")
            await page.evaluate(_PAGE, [scale, life])
            yield heard
        finally:
            await context.close()

    return listen


CLIENTS: dict[str, Callable[[], AbstractAsyncContextManager[Listen]]] = {
    "python": python,
    "node": node,
    "chromium": chromium,
}


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no {name} on the PATH: run scripts/system-packages")
    return found
