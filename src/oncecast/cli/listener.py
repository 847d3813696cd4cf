"""`oncecast sub`: print a line for each message, for as long as anyone listens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import time
from collections.abc import Sequence

import click
import msgspec

from ..client.async_client import AsyncClient
from ..client.ladder import Moved
from ..client.link import LinkState, StateChanged
from ..client.messages import Messages
from ..client.transports import TRANSPORTS
from ..client.url import ServerUrl
from ..client.values import ClientMessage, Gap
from ..errors import UsageError
from .base import escaped, in_one_line, put, server_option

__all__ = ["sub"]

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Between a JSON text's tokens a line may end; within its strings may stand, in UTF-8, what a terminal obeys (C1
# controls, DEL) and what some readers take for the end of a line (U+2028, U+2029). Escaped, it is the same text.
_UNSAFE_JSON = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


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
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Begin with the last N messages.")
@click.option("--since", metavar="T", help="Begin at a time: Unix seconds, or an age such as 90s, 10m, 2h, 1d.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@click.option("--json", "as_json", is_flag=True, help="Print each message whole, as one line of JSON.")
def sub(
    channels: tuple[str, ...],
    server: ServerUrl,
    transport: str,
    after: str | None,
    last: int | None,
    since: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print the messages of one or more CHANNELs as they come, a line each.

    A line is the message's data: text as it is, with control characters escaped; JSON as it was published, on one
    line; binary data in base64. With several channels each line begins with "CHANNEL: ". With --json a line is the
    whole message: {"id", "channel", "data" or "data64", "event", "time"}.

    It reconnects for ever and resumes where it was: no message is lost or repeated, and a gap is said on standard
    error. Ctrl-C ends it.

    \b
    Examples:
      oncecast sub news
      oncecast sub news sport --last 10
      oncecast sub prices --json | jq .data
      oncecast sub orders --after k3f9x2-42 --count 1
    """
    with in_one_line(), contextlib.suppress(KeyboardInterrupt):
        if (after is not None) + (last is not None) + (since is not None) > 1:
            raise UsageError("give one of --after, --last and --since")
        moment = None if since is None else _moment(since)
        names = list(TRANSPORTS) if transport == "auto" else [transport]

        async def listen() -> None:
            async with AsyncClient(str(server), transports=names) as client:
                _tell_of(client, channels)
                await _print(client.subscribe(*channels, after=after, last=last, since=moment), count, as_json)

        asyncio.run(listen())


async def _print(messages: Messages, count: int | None, as_json: bool) -> None:
    """Print the messages, each as it comes, until there have been `count` of them."""
    several = len(messages.channels) > 1
    async for message in messages:
        put(_envelope(message) if as_json else _plain(message, several))
        count = None if count is None else count - 1
        if count == 0:
            return


def _tell_of(client: AsyncClient, channels: Sequence[str]) -> None:
    """Say on standard error, in a line each, what becomes of the connection, and which messages are missing."""
    names = ", ".join(dict.fromkeys(channels))
    ranks = list(TRANSPORTS)
    listened = False
    told = ""  # why it was lost: once is enough, however many attempts fail alike

    def state(change: StateChanged) -> None:
        nonlocal listened, told
        if change.after is LinkState.LISTENING:
            _say(f"{'listening again' if listened else f'listening to {names}'} over {change.reason}")
            listened, told = True, ""
        elif change.after is LinkState.WAITING and change.reason != told:
            told = change.reason
            _say(f"{_clause(told)}; trying again until it is back")

    def moved(move: Moved) -> None:
        is_up = ranks.index(move.after) < ranks.index(move.before)
        _say(f"{_clause(move.reason)}; turning to {'it' if is_up else 'another transport'}")

    client.on("state", state)
    client.on("transport", moved)
    client.on("gap", lambda gap: _say(_gap_line(gap)))


def _say(line: str) -> None:
    """Print a line on standard error; the messages go on where it is not taken."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _clause(reason: str) -> str:
    return escaped(reason.rstrip("."))


def _moment(text: str) -> float:
    """Return the Unix time that the text means."""
    if ago := _AGO.fullmatch(text):
        return max(0.0, time.time() - float(ago[1]) * _UNITS[ago[2]])
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text, re.ASCII):
        return float(text)
    raise UsageError(f"{text!r} is not a time: give Unix seconds, or an age such as 90s, 10m, 2h or 1d")


def _plain(message: ClientMessage, with_channel: bool) -> bytes:
    """Return the line for people: never more than a line, and nothing that a terminal would obey."""
    data = message.data
    if isinstance(data, bytes):
        line = base64.b64encode(data)
    elif message.raw_data.startswith(b'"'):
        line = escaped(data).encode()
    else:
        line = _one_line(message.raw_data)
    return message.channel.encode() + b": " + line if with_channel else line


def _envelope(message: ClientMessage) -> bytes:
    """Return the message's JSON, the same over each transport, with the data as it stands on the wire."""
    data = message.data
    is_binary = isinstance(data, bytes)
    fields = {
        "id": message.id,
        "channel": message.channel,
        **(
            {"data64": {"base64": base64.b64encode(data).decode()}}
            if is_binary
            else {"data": msgspec.Raw(message.raw_data)}
        ),
        "event": message.event,
        "time": message.time,
    }
    return _one_line(msgspec.json.encode(fields))


def _one_line(text: bytes) -> bytes:
    """Return a JSON text that says the same, digit for digit, on one line and with nothing that a terminal obeys."""
    return _UNSAFE_JSON.sub(lambda found: _harmless(found[0].decode()), text)


def _harmless(character: str) -> bytes:
    return b" " if character in "\r\n\t" else f"\\u{ord(character):04x}".encode()


def _gap_line(gap: Gap) -> str:
    ends = f"{gap.missed_from or 'the beginning'} to {gap.missed_to or 'an unknown end'}"
    return f"gap in {escaped(gap.channel)}: missed {escaped(ends)} ({escaped(gap.reason)})"
