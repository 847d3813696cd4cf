"""`oncecast sub`: print a line for each message, for as long as anyone listens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import time

import click
import msgspec

from ..client.base import ClientMessage, Gap, Start, Timing
from ..client.http import Server
from ..client.subscription import TRANSPORTS, Attached, Lost, Subscription, subscribe
from ..errors import UsageError
from .base import escaped, in_one_line, put, server_option

__all__ = ["sub"]

_CURSOR = re.compile(r"[A-Za-z0-9._~-]{1,1024}", re.ASCII)  # opaque to us, but it goes into a URL
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
    server: Server,
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
        start = _start(after, last, since)
        asyncio.run(
            _print(subscribe(server, channels, transport=transport, start=start, timing=Timing()), count, as_json)
        )


async def _print(subscription: Subscription, count: int | None, as_json: bool) -> None:
    """Print what the subscription yields until `count` messages have come."""
    channels = list(subscription.places)
    listened = False
    told = ""  # why it was lost: once is enough, however many attempts fail alike
    async with contextlib.aclosing(subscription.notices()) as notices:
        async for notice in notices:
            match notice:
                case ClientMessage():
                    put(_envelope(notice) if as_json else _plain(notice, len(channels) > 1))
                    count = None if count is None else count - 1
                    if count == 0:
                        return
                case Gap():
                    click.echo(_gap_line(notice), err=True)
                case Attached(transport):
                    what = "listening again" if listened else f"listening to {', '.join(channels)}"
                    click.echo(f"{what} over {transport}", err=True)
                    listened, told = True, ""
                case Lost(reason, seconds) if reason != told:
                    told = reason
                    what = "trying again until it is back" if seconds else "turning to another transport"
                    click.echo(f"{escaped(reason.rstrip('.'))}; {what}", err=True)


def _start(after: str | None, last: int | None, since: str | None) -> Start:
    """Return where to begin. Raises `UsageError`."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise UsageError("give one of --after, --last and --since")
    if last is not None:
        return Start("last", str(last))
    if since is not None:
        return Start("since", f"{_moment(since):.3f}")
    if after is not None and _CURSOR.fullmatch(after) is None:
        raise UsageError(f"{after!r} is not a cursor: give a message's id, or latest, or earliest")
    return Start("after", after or "latest")


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
