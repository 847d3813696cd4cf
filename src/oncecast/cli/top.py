"""`oncecast top URL`: what a server does, in a terminal, as it goes on.

Owns the terminal while it runs: it is given back as it was, however the command ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from ..client.credentials import check_token
from ..client.dialing import Endpoint
from ..client.failures import Broken, Unreachable, failure_of_answer
from ..client.http import HttpConnection
from ..client.timing import Timing
from ..client.url import ServerUrl
from ..core.census import ORDERS
from ..http.operator import OVERVIEW
from ..http.overview import CHANNELS, Overview
from .base import FAILED, MISUSED, Failure, escaped, in_one_line, put, say, token_of
from .retrying import check_scheme, unreachable
from .top_lines import TopLine, lines_of, waiting_lines

__all__ = ["top"]

ONCE_ROWS = 40  # lines where there is no terminal that sets them
KEY_BYTES = 8192  # of the file of a key
TIMING = Timing(connect=5.0, answer=10.0, body=10.0)
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the second screen, without a cursor: xterm's
HOME, END_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"  # ECMA-48 §8.3.21, §8.3.41, §8.3.39
STYLES = {"": "", "bold": "\x1b[1m", "dim": "\x1b[2m", "red": "\x1b[31m", "reverse": "\x1b[7m"}
PLAIN = "\x1b[m"


@click.command(short_help="Show what a server does, as it goes on.")
@click.argument("url", metavar="URL")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file that has the server's key.  [default: the key in ONCECAST_TOKEN]",
)
@click.option("--order", type=click.Choice(list(ORDERS)), default="rate", show_default=True, help="Channels by this.")
@click.option("--once", is_flag=True, help="Print the figures once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line each time, as /v1/overview answers.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
def top(url: str, key_file: Path | None, order: str, once: bool, as_json: bool, interval: float) -> None:
    """Show what a server does: connections by transport, rates, refusals, and its channels. Ctrl-C ends it.

    The server asks for one of its keys, but with --dev on this machine. What is shown is one node, all its workers
    together; ask each node of a cluster by its own address. Once the figures were there, a server that does not answer
    is asked again until it does. Where the output is no terminal, it prints once.

    \b
    Examples:
      oncecast top http://127.0.0.1:8000
      oncecast top https://rt.example.com --key ~/.oncecast-key --order lag
      oncecast top http://10.0.0.7:8000 --once --json | jq '.channels.listed[].name'
    """
    with in_one_line():
        server = ServerUrl.parse(url)
    endpoint = Endpoint(server, _identity(key_file))
    once = once or not (as_json or sys.stdout.isatty())
    with in_one_line(), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Top(endpoint, order, interval).run(once=once, as_json=as_json))


class _Top:
    """Asks one server again and again."""

    def __init__(self, endpoint: Endpoint, order: str, interval: float) -> None:
        self._server = endpoint.url
        self._order = order
        self._interval = interval
        self._connection = HttpConnection(endpoint, timing=TIMING)
        self._body = b""
        self._now: Overview | None = None
        self._before: Overview | None = None
        self._trouble: str | None = None

    async def run(self, *, once: bool, as_json: bool) -> None:
        """Show until the command is to end. Raises `Failure` where the server can't be reached, or refuses."""
        try:
            await self._first()
            if as_json:
                await self._print_json(once)
            elif once:
                for line in self._lines(shutil.get_terminal_size((100, ONCE_ROWS)).columns, ONCE_ROWS):
                    put(line.text)
            else:
                await self._watch()
        finally:
            await self._connection.close()

    async def _first(self) -> None:
        try:
            await self._ask()
        except Unreachable as error:
            await check_scheme(self._server)
            raise unreachable(self._server, error) from None

    async def _ask(self) -> None:
        """Get the next overview. Raises `Broken`, or `Refused` where asking again can't help."""
        answer = await self._connection.request("GET", f"{OVERVIEW}?order={self._order}&limit={CHANNELS}")
        if answer.status != 200:
            raise failure_of_answer(answer.status, answer.body, answer.retry_after)
        try:
            overview = msgspec.json.decode(answer.body, type=Overview)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Failure(f"{self._server} gives no overview that this version of oncecast knows", FAILED) from None
        self._body, self._before, self._now = answer.body, self._now, overview

    async def _ask_again(self) -> None:
        """Do as `_ask`, and keep why there is no answer."""
        try:
            await self._ask()
            self._trouble = None
        except Broken as error:
            self._trouble = f"These figures are old, asking again: {str(error).rstrip('.')}"

    async def _print_json(self, once: bool) -> None:
        said = False
        while True:
            if self._trouble is None:
                put(self._body)
            elif not said:
                say(escaped(self._trouble))
            said = self._trouble is not None
            if once:
                return
            await asyncio.sleep(self._interval)
            await self._ask_again()

    async def _watch(self) -> None:
        changed, stopping = asyncio.Event(), asyncio.Event()
        with _screen(changed, stopping):
            asking = asyncio.ensure_future(self._keep_asking(changed))
            asking.add_done_callback(lambda _: changed.set())
            try:
                while not (stopping.is_set() or asking.done()):
                    changed.clear()
                    self._draw()
                    await changed.wait()
            finally:
                asking.cancel()
                await asyncio.wait([asking])
        if not asking.cancelled():
            asking.result()  # raises why the server will not answer

    async def _keep_asking(self, changed: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(loop.time(), due) + self._interval
            await self._ask_again()
            changed.set()

    def _lines(self, width: int, height: int) -> list[TopLine]:
        if self._now is None:
            return waiting_lines(str(self._server), self._trouble or "", width)
        return lines_of(str(self._server), self._now, self._before, width, height, self._trouble)

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        lines = [
            f"{STYLES[line.style]}{line.text}{PLAIN}{END_OF_LINE}" for line in self._lines(size.columns, size.lines)
        ]
        put(HOME + "\r\n".join(lines) + REST_OF_SCREEN, nl=False)


@contextlib.contextmanager
def _screen(changed: asyncio.Event, stopping: asyncio.Event) -> Iterator[None]:
    """Take the terminal. Another size sets `changed`; Ctrl-C, SIGTERM and SIGHUP set both."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        changed.set()

    handled = {signal.SIGWINCH: changed.set, signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: stop}
    for number, handle in handled.items():
        loop.add_signal_handler(number, handle)
    put(ENTER, nl=False)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, Failure):  # the terminal may be gone
            put(LEAVE, nl=False)
        for number in handled:
            loop.remove_signal_handler(number)


def _identity(key_file: Path | None) -> tuple[tuple[str, str], ...]:
    """Return the header with the key, if there is one. Raises `Failure`."""
    if key_file is None:
        token = token_of()
        return () if token is None else (("Authorization", f"Bearer {token()}"),)
    try:
        with key_file.expanduser().open("rb") as file:
            key = file.read(KEY_BYTES).decode("ascii").strip()
        check_token(key)
    except OSError as error:
        raise Failure(f"--key: {os.fspath(key_file)} can't be read: {error.strerror}", MISUSED) from None
    except ValueError:
        raise Failure(f"--key: {os.fspath(key_file)} holds no key: write the key alone into it", MISUSED) from None
    return (("Authorization", f"Bearer {key}"),)
