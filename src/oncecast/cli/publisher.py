"""`oncecast pub`: publish an argument, or lines as they come, and print what each was acknowledged with."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator

import click
import msgspec

from ..client.dialing import Endpoint
from ..client.encoding import Content
from ..client.failures import Unreachable
from ..client.publisher import Publisher
from ..client.timing import Timing
from ..client.url import ServerUrl
from ..errors import UsageError
from ..message import Kind
from ..wire.envelope import json_data, sniff, text_data
from .base import FAILED, START_ONE, Failure, in_one_line, put, server_option

__all__ = ["pub"]

READ_BYTES = 65536
LINE_BYTES = 64 * 1024 * 1024  # the largest message that a server may be set to take
PATIENCE = 60.0  # seconds: longer than a restart takes


@click.command(short_help="Publish a message, or each line of standard input.")
@click.argument("channel")
@click.argument("data", required=False, metavar="[DATA|-]")
@server_option
@click.option("--event", metavar="NAME", help="The event's name, for listeners that tell events apart.")
@click.option("--key", metavar="KEY", help="The Idempotency-Key: the same key is published once, however often sent.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["auto", "json", "text", "binary"]),
    default="auto",
    show_default=True,
    help="What the data is; auto is JSON if it parses as that, else text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each acknowledgement whole, as JSON.")
def pub(
    channel: str, data: str | None, server: ServerUrl, event: str | None, key: str | None, kind: str, as_json: bool
) -> None:
    """Publish to CHANNEL: DATA, or each line of standard input as soon as it is read.

    Prints the id of each message once the server has it. What is not acknowledged is sent again, with the same key, for
    up to a minute, and is in the channel once. A server that refuses the very first connection is not waited for: most
    likely none runs there. Empty lines are skipped.

    \b
    Examples:
      oncecast pub news "hello"
      oncecast pub prices '{"EUR": 1.08}' --event tick
      tail -f app.log | oncecast pub logs --type text
      oncecast pub orders '{"n": 7}' --key order-7
    """
    with in_one_line():
        asyncio.run(_publish(channel, data, server, event, key, kind, as_json))


async def _publish(
    channel: str, data: str | None, server: ServerUrl, event: str | None, key: str | None, kind: str, as_json: bool
) -> None:
    from_input = data in (None, "-")
    if from_input and key is not None:
        raise UsageError("--key is one message's: give it with DATA, as each line has a key of its own")
    if from_input and sys.stdin.isatty():
        click.echo("Each line you type is published; end with Ctrl-D.", err=True)
    publisher = Publisher(Endpoint(server), timing=Timing(), patience=PATIENCE)
    try:
        items = _lines() if from_input else _one(os.fsencode(data or ""))
        async for item in items:
            ack = await publisher.publish(channel, _classify(item, kind), event=event, key=key)
            put(msgspec.json.encode(ack) if as_json else ack.id)
    except Unreachable:
        raise Failure(f"no server answers at {server}: {START_ONE}, or give --server", FAILED) from None
    finally:
        await publisher.close()


def _classify(data: bytes, kind: str) -> Content:
    """Return the data and its kind. Raises `Refusal` where it is not what it is said to be."""
    if kind == "json":
        return Content(Kind.JSON, json_data(data))
    if kind == "text":
        return Content(Kind.TEXT, text_data(data))
    if kind == "binary":
        return Content(Kind.BINARY, data)
    data, found = sniff(data)
    return Content(found, data)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _lines() -> AsyncIterator[bytes]:
    """Yield the lines of standard input as they come, without their ends."""
    try:
        fd = sys.stdin.fileno()
    except (io.UnsupportedOperation, ValueError):  # not a file at all, or closed
        for whole in sys.stdin.buffer:
            if line := whole.rstrip(b"\r\n"):
                yield line
        return
    rest: list[bytes] = []  # pieces of the line that has not ended, joined once
    while True:
        await _readable(fd)
        piece = os.read(fd, READ_BYTES)
        head, end, tail = piece.rpartition(b"\n")
        lines = b"".join([*rest, head]).split(b"\n") if end or not piece else []
        rest = [tail] if end else [*rest, piece]
        if len(rest) * READ_BYTES > LINE_BYTES and sum(map(len, rest)) > LINE_BYTES:
            raise Failure(
                f"a line of standard input is longer than {LINE_BYTES} bytes, more than a server takes", FAILED
            )
        for whole in lines:
            if line := whole.removesuffix(b"\r"):
                yield line
        if not piece:
            return


async def _readable(fd: int) -> None:
    """Wait until a read won't block. Non-blocking mode would do too, but whoever shares the terminal would be in it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a regular file: epoll does not take it, and it never blocks
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
