"""`oncecast broker status|channels|trim|export|import`: look into a log, trim it, and move it to another broker."""

from __future__ import annotations

import asyncio

import click
import msgspec

from ..brokers.operable import ChannelState
from ..errors import Refusal
from ..message import INTERNAL, Draft, Retention, check_channel
from .base import FAILED, MISUSED, Failure, in_one_line, put
from .broker_lines import LineError, end_line, head_line, message_line, read_end, read_head, read_message
from .broker_log import KEPT, OpenLog, open_log
from .lines import read_lines

__all__ = ["broker"]

BATCH_MESSAGES = 200  # imported together: the next batch waits for the acknowledgement, so order holds
BATCH_BYTES = 1 << 20

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Look into a log, trim it, or move it to another broker.")
def broker() -> None:
    """Look into the log that a broker keeps, trim it, or move it to another broker.

    URL is what `oncecast serve --broker` takes. The servers of the log may go on running meanwhile.

    \b
    Examples:
      oncecast broker status redis://127.0.0.1:6379/0
      oncecast broker export sqlite:///oncecast.db | oncecast broker import nats://127.0.0.1:4222
    """


@broker.command()
@click.argument("url", metavar="URL")
@as_json_option
def status(url: str, as_json: bool) -> None:
    """Print what the broker is, and where its log stands.

    Exits with 1 where it can't be reached.

    \b
    Examples:
      oncecast broker status redis://127.0.0.1:6379/0
      oncecast broker status --json nats://127.0.0.1:4222
    """

    async def run() -> None:
        async with open_log(url) as log:
            state = await log.operable.inspect()
            if as_json:
                found = {"epoch": log.epoch, "head": log.head, "lives": state.holes + 1}
                put(msgspec.json.encode({**found, **msgspec.to_builtins(state)}))
                return
            put(f"server  {state.server}")
            put(f"epoch   {log.epoch}")
            put(f"head    {log.head}")
            put(f"lives   {state.holes + 1}, with {state.holes} holes between them")
            if state.bytes is not None:
                put(f"bytes   {state.bytes} ({state.measure})")

    asyncio.run(run())


@broker.command(short_help="List the channels that hold messages.")
@click.argument("url", metavar="URL")
@as_json_option
def channels(url: str, as_json: bool) -> None:
    """List each channel that holds a message: its name, messages, oldest and newest number.

    \b
    Examples:
      oncecast broker channels redis://127.0.0.1:6379/0 | sort -k2 -n | tail
    """

    async def run() -> None:
        async with open_log(url) as log:
            for channel in await log.operable.channels():
                _print_channel(channel, as_json)

    asyncio.run(run())


@broker.command()
@click.argument("url", metavar="URL")
@click.argument("channel", metavar="CHANNEL")
@click.option("--messages", type=click.IntRange(0, KEPT.messages), metavar="N", help="Keep the N newest messages.")
@click.option("--seconds", type=click.FloatRange(0, KEPT.seconds), metavar="S", help="Keep what is at most S old.")
def trim(url: str, channel: str, messages: int | None, seconds: float | None) -> None:
    """Trim a channel now, and print what is left of it.

    Listeners whose cursor is behind get a gap. Give --messages, --seconds, or both.

    \b
    Examples:
      oncecast broker trim redis://127.0.0.1:6379/0 news --messages 100
      oncecast broker trim sqlite:///oncecast.db news --seconds 3600
    """
    if messages is None and seconds is None:
        raise Failure("say what is to be kept: give --messages N, --seconds S, or both", MISUSED)
    with in_one_line():
        check_channel(channel)
    kept = Retention(
        KEPT.messages if messages is None else messages,
        KEPT.seconds if seconds is None else seconds,
    )

    async def run() -> None:
        async with open_log(url) as log:
            _print_channel(await log.operable.trim(channel, kept), False)

    asyncio.run(run())


@broker.command(short_help="Print the log as JSON lines.")
@click.argument("url", metavar="URL")
def export(url: str) -> None:
    """Print the log as JSON lines: a head with the epoch, each message in order, and an end.

    What is published meanwhile is left out.

    \b
    Examples:
      oncecast broker export redis://127.0.0.1:6379/0 > log.jsonl
    """

    async def run() -> None:
        async with open_log(url) as log:
            put(head_line(log.epoch, log.head))
            count = 0
            async for message in log.messages():
                if message.channel in INTERNAL:  # of no use in another log
                    continue
                put(message_line(message))
                count += 1
            put(end_line(count))

    asyncio.run(run())


@broker.command("import")
@click.argument("url", metavar="URL")
@click.option("--append", is_flag=True, help="Add to a log that has messages.")
def import_(url: str, append: bool) -> None:
    """Add to the log what `export` has printed, from standard input.

    The messages get new ids and the time of the import; idempotency keys are not kept. A listener that comes with a
    cursor of the old log gets a gap. Refuses a log that has messages, unless --append is given.

    \b
    Examples:
      oncecast broker import nats://127.0.0.1:4222 < log.jsonl
      oncecast broker export sqlite:///oncecast.db | oncecast broker import redis://127.0.0.1:6379/0
    """
    asyncio.run(_import(url, append))


async def _import(url: str, append: bool) -> None:
    done = 0
    async with open_log(url, create=True) as log:
        if not append and await log.operable.channels():
            raise Failure("the log has messages: name an empty one, or give --append to add to it", MISUSED)
        began = False
        ended: int | None = None
        batch: list[Draft] = []
        size = 0
        async for lines in read_lines():
            for number, line in lines:
                try:
                    if not began:
                        began = bool(read_head(line))
                        continue
                    if ended is not None:
                        raise LineError("there is a line after the end")
                    ended = read_end(line)
                    if ended is not None:
                        continue
                    draft = read_message(line)
                except LineError as error:
                    text = f"line {number}: {error}; {done} messages before it are imported"
                    raise Failure(text, MISUSED) from None
                batch.append(draft)
                size += len(draft.data)
                if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                    done = await _add(log, batch, done)
                    batch, size = [], 0
        if batch:
            done = await _add(log, batch, done)
        if not began:
            raise Failure("standard input is empty: give what `oncecast broker export` has printed", MISUSED)
        if ended is None:
            raise Failure(f"the export was cut off: {done} messages are imported, and its end is missing", FAILED)
        if ended != done:
            raise Failure(f"{done} messages are imported, and the export says that it has {ended}", FAILED)
        put(f"Imported {done} messages into the log {log.epoch}.")


async def _add(log: OpenLog, batch: list[Draft], done: int) -> int:
    """Append a batch, and return how many messages are in the log now. Raises `Failure`."""
    for outcome in await log.publish(batch):
        if isinstance(outcome, Refusal):
            text = f"message {done + 1} was not imported, those before it are: {outcome.message}"
            raise Failure(text, FAILED)
        done += 1
    return done


def _print_channel(channel: ChannelState, as_json: bool) -> None:
    if as_json:
        put(msgspec.json.encode(channel))
    else:
        put(f"{channel.name} {channel.messages} {channel.oldest} {channel.newest}")
