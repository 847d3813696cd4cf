"""`oncecast sub`: print a line for each message, as they come or as many as there are now."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence

import click

from ..client.async_client import AsyncClient
from ..client.ladder import Moved
from ..client.link import LinkState, StateChanged
from ..client.messages import Messages
from ..client.starts import channels_of, start_of
from ..client.transports import TRANSPORTS
from ..client.url import ServerUrl
from ..client.values import ClientMessage
from ..errors import UsageError
from .backlog import print_backlog
from .base import SHOWN_CHARS, Count, escaped, in_one_line, put, say, server_option, token_of
from .message_lines import envelope, gap_line, plain
from .retrying import check_scheme

__all__ = ["sub"]

_AGO = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(short_help="Print the messages of channels as they come.")
@click.argument("channels", nargs=-1, required=True, metavar="CHANNEL...")
@server_option
@click.option(
    "--transport",
    type=click.Choice(["auto", *TRANSPORTS]),
    default="auto",
    show_default=True,
    metavar="HOW",
    help=f"How to listen: {', '.join(TRANSPORTS)}, or auto, which takes the first of these that gets through.",
)
@click.option("--after", metavar="CURSOR", help="Begin right after a message's id; or `latest`, or `earliest`.")
@click.option("--last", type=Count(0), metavar="N", help="Begin with the last N messages of each channel.")
@click.option("--since", metavar="T", help="Begin at a time: Unix seconds, or an age such as 90s, 10m, 2h, 1d.")
@click.option("--count", type=Count(1), metavar="N", help="Stop after N messages.")
@click.option(
    "--no-follow", is_flag=True, help="Print what there is now, from --after earliest on by default, and stop."
)
@click.option("--json", "as_json", is_flag=True, help="Print each message whole, as one line of JSON.")
def sub(
    channels: tuple[str, ...],
    server: ServerUrl,
    transport: str,
    after: str | None,
    last: int | None,
    since: str | None,
    count: int | None,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Print the messages of one or more CHANNELs as they come, a line each.

    A line is the message's data: text as it is, with control characters escaped; JSON as it was published, on one
    line; binary data in base64. With several channels each line begins with "CHANNEL: ". With --json a line is the
    whole message: {"id", "channel", "data" or "data64", "event", "time"}.

    It reconnects for ever and resumes where it was: no message is lost or repeated, and a gap is reported on standard
    error. A token or key in ONCECAST_TOKEN is sent.

    Ctrl-C ends it, with exit code 0. With --no-follow it polls, and stops once it has what was there when it
    began; a server that does not answer is tried for a minute.

    \b
    Examples:
      oncecast sub news
      oncecast sub news sport --last 10
      oncecast sub prices --json | jq .data
      oncecast sub orders --after k3f9x2-42 --count 1
      oncecast sub orders --no-follow --json > orders.jsonl
    """
    with in_one_line(), contextlib.suppress(KeyboardInterrupt):
        if (after is not None) + (last is not None) + (since is not None) > 1:
            raise UsageError("give one of --after, --last and --since")
        moment = None if since is None else _moment(since)
        several = len(set(channels)) > 1
        printing = _Printing(envelope if as_json else lambda message: plain(message, several), count)
        if no_follow:
            if transport != "auto":
                raise UsageError("--no-follow reads by polling: leave --transport out")
            start = start_of(after, last, moment, default="earliest")
            asyncio.run(print_backlog(server, channels_of(channels), start, printing.message))
        else:
            names = list(TRANSPORTS) if transport == "auto" else [transport]
            asyncio.run(_listen(server, names, channels, after, last, moment, printing))


class _Printing:
    """Prints messages, until there have been `count` of them."""

    def __init__(self, line_of: Callable[[ClientMessage], bytes], count: int | None) -> None:
        self._line_of = line_of
        self._count = count

    def message(self, message: ClientMessage) -> bool:
        """Print a message; say whether another is wanted."""
        put(self._line_of(message))
        if self._count is not None:
            self._count -= 1
        return self._count != 0


async def _listen(
    server: ServerUrl,
    transports: Sequence[str],
    channels: Sequence[str],
    after: str | None,
    last: int | None,
    since: float | None,
    printing: _Printing,
) -> None:
    """Print messages until there are enough, or for ever. Raises `Failure`, `Refused` or `UsageError`."""
    async with AsyncClient(str(server), transports=transports, get_token=token_of()) as client:
        failed = _report(client, channels)
        tasks = [
            asyncio.create_task(_print(client.subscribe(*channels, after=after, last=last, since=since), printing)),
            asyncio.create_task(_check_scheme(server, failed)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1].done():
                await tasks[1]
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _print(messages: Messages, printing: _Printing) -> None:
    async for message in messages:
        if not printing.message(message):
            return


async def _check_scheme(server: ServerUrl, failed: asyncio.Event) -> None:
    """Wait for the first attempt to fail; raise `Failure` where it fails as the URL should say https."""
    await failed.wait()
    await check_scheme(server)


def _report(client: AsyncClient, channels: Sequence[str]) -> asyncio.Event:
    """Report on standard error, in a line each, what becomes of the connection, and which messages are missing.

    Returns the event that is set if an attempt fails before any has listened.
    """
    failed = asyncio.Event()
    names = ", ".join(dict.fromkeys(channels))
    ranks = list(TRANSPORTS)
    listened = False
    reported = ""  # why it was lost: once is enough, however many attempts fail alike

    def state(change: StateChanged) -> None:
        nonlocal listened, reported
        if change.after is LinkState.LISTENING:
            say(f"{'listening again' if listened else f'listening to {names}'} over {change.reason}")
            listened, reported = True, ""
        elif change.after is LinkState.WAITING:
            if not listened:
                failed.set()
            if change.reason != reported:
                reported = change.reason
                say(f"{_clause(reported)}; trying again until it is back")

    def moved(move: Moved) -> None:
        is_up = ranks.index(move.after) < ranks.index(move.before)
        say(f"{_clause(move.reason)}; turning to {'it' if is_up else 'another transport'}")

    client.on("state", state)
    client.on("transport", moved)
    client.on("gap", lambda gap: say(gap_line(gap)))
    return failed


def _clause(reason: str) -> str:
    return escaped(reason.rstrip("."))


def _moment(text: str) -> float:
    """Return the Unix time that the text means."""
    if ago := _AGO.fullmatch(text):
        return max(0.0, time.time() - float(ago[1]) * _UNITS[ago[2]])
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text, re.ASCII):
        return float(text)
    raise UsageError(f"{text[:SHOWN_CHARS]!r} is not a time: give Unix seconds, or an age such as 90s, 10m, 2h or 1d")
