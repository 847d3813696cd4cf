"""`oncecast pub`: publish an argument, a whole file, or lines as they come, and print each acknowledgement."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import click
import msgspec

from ..client.credentials import Credentials
from ..client.dialing import Endpoint
from ..client.encoding import Content, check_names
from ..client.failures import Broken, Refused, Unreachable
from ..client.publisher import BATCH_LINES, Publisher, PublishOutcome
from ..client.timing import Timing
from ..client.url import ServerUrl
from ..client.values import Ack, Outgoing
from ..errors import Refusal, UsageError
from ..message import Kind
from ..wire.payload import json_data, sniff, text_data
from .base import FAILED, Failure, escaped, in_one_line, put, say, server_option, token_of
from .lines import Line, read_lines, read_whole
from .retrying import PATIENCE, RetryNotice, unreachable

__all__ = ["pub"]

ABOUT_DATA = frozenset({"data_invalid", "body_too_large"})  # another line may be taken


@click.command(short_help="Publish a message, a file, or each line of standard input.")
@click.argument("channel")
@click.argument("data", required=False, metavar="[DATA|-]")
@server_option
@click.option(
    "--file",
    "path",
    metavar="PATH|-",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Publish a whole file, or all of standard input, as one message.",
)
@click.option("--event", metavar="NAME", help="The event's name, for listeners that tell events apart.")
@click.option("--key", metavar="KEY", help="The Idempotency-Key: the same key is published once, however often sent.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["auto", "json", "text", "binary"]),
    default="auto",
    show_default=True,
    help="What the data is; auto is JSON if it parses as that, else text, else binary.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each acknowledgement whole, as JSON.")
def pub(
    channel: str,
    data: str | None,
    server: ServerUrl,
    path: Path | None,
    event: str | None,
    key: str | None,
    kind: str,
    as_json: bool,
) -> None:
    """Publish to CHANNEL: DATA, a whole file, or each line of standard input as soon as it is read.

    Prints the id of each message once the server has it. What is not acknowledged is sent again, with the same key, for
    up to a minute, and is in the channel once; standard error reports what it waits for. A server that can't be reached
    at the very first attempt is not waited for. Lines that are ready are sent together, in order; empty lines are
    skipped. A line that is refused is named on standard error, the others are published, and the exit code is 1.

    A token or key in ONCECAST_TOKEN is sent.

    \b
    Examples:
      oncecast pub news "hello"
      oncecast pub prices '{"EUR": 1.08}' --event tick
      tail -f app.log | oncecast pub logs --type text
      oncecast pub images --file cat.png --type binary
      oncecast pub orders '{"n": 7}' --key order-7
    """
    is_lines = path is None and data in (None, "-")
    with in_one_line():
        if path is not None and data is not None:
            raise UsageError("give DATA or --file, not both")
        if is_lines and key is not None:
            raise UsageError("--key is one message's: give it with DATA or --file, as each line has a key of its own")
        if is_lines and kind == "binary":
            raise UsageError("binary data has no lines: give --file - to publish all of standard input as one message")
        check_names(channel, event, key)
        sending = _Sending(server, channel, event, key, kind, as_json)
        if is_lines:
            asyncio.run(sending.lines())
        else:
            asyncio.run(sending.one(os.fsencode(data or "") if path is None else read_whole(path)))


class _Sending:
    """One run of the command."""

    def __init__(
        self, server: ServerUrl, channel: str, event: str | None, key: str | None, kind: str, as_json: bool
    ) -> None:
        self._server = server
        self._channel = channel
        self._event = event
        self._key = key
        self._kind = kind
        self._as_json = as_json
        self._notice = RetryNotice(server)

    async def one(self, data: bytes) -> None:
        """Publish one message. Raises `Failure`, `Refusal`, `Refused` or `Broken`."""
        content = _classify(data, self._kind)
        publisher = self._publisher()
        try:
            ack = await publisher.publish(self._channel, content, event=self._event, key=self._key)
        except Unreachable as error:
            raise unreachable(self._server, error) from None
        finally:
            await publisher.close()
        self._print(ack)

    async def lines(self) -> None:
        """Publish each line. Raises `Failure`: at once if it is about all of them, at the end if it is about some."""
        if sys.stdin.isatty():
            say("Each line you type is published; end with Ctrl-D.")
        publisher = self._publisher()
        refused = 0
        try:
            async for burst in read_lines():
                refused += await self._publish(publisher, burst)
        finally:
            await publisher.close()
        if refused:
            count = "1 line was" if refused == 1 else f"{refused} lines were"
            raise Failure(f"{count} not published, as said above; the others were", FAILED)

    async def _publish(self, publisher: Publisher, burst: Iterable[Line]) -> int:
        """Publish lines together; return how many are refused for what is in them."""
        refused = 0
        for together, some in groupby(_drafts(burst, self._kind), key=lambda draft: draft.fits_batch):
            while drafts := list(islice(some, BATCH_LINES if together else 1)):
                refused += self._report(drafts, await self._send(publisher, drafts, together))
        return refused

    def _report(self, drafts: list[_ReadLine], outcomes: list[PublishOutcome]) -> int:
        """Print what became of each line; return how many are refused for what is in them."""
        refused = 0
        failed: tuple[_ReadLine, Refused | Broken] | None = None
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, Ack):
                self._print(outcome)
            elif isinstance(outcome, Refused) and outcome.code in ABOUT_DATA:
                refused += 1
                say(f"line {draft.number}: {escaped(str(outcome))}")
            else:
                failed = failed or (draft, outcome)
        if failed is not None:
            draft, error = failed
            if isinstance(error, Unreachable) and not self._notice.has_answered:
                raise unreachable(self._server, error)
            raise Failure(f"line {draft.number} is not published: {str(error).rstrip('.')}; stopped there", FAILED)
        return refused

    async def _send(self, publisher: Publisher, drafts: list[_ReadLine], together: bool) -> list[PublishOutcome]:
        good = [draft for draft in drafts if isinstance(draft.content, Content)]
        if together and len(good) > 1:
            sent = await publisher.publish_many(Outgoing(self._channel, each.content, self._event) for each in good)
        else:
            sent = [await self._send_one(publisher, each) for each in good]
        outcomes = iter(sent)
        return [next(outcomes) if isinstance(each.content, Content) else each.content for each in drafts]

    async def _send_one(self, publisher: Publisher, draft: _ReadLine) -> PublishOutcome:
        assert isinstance(draft.content, Content)
        try:
            return await publisher.publish(self._channel, draft.content, event=self._event)
        except (Refused, Broken) as error:
            return error

    def _publisher(self) -> Publisher:
        return Publisher(
            Endpoint(self._server),
            timing=Timing(),
            patience=PATIENCE,
            credentials=Credentials(token_of()),
            on_retry=self._notice.retry,
        )

    def _print(self, ack: Ack) -> None:
        self._notice.answered()
        put(msgspec.json.encode(ack) if self._as_json else ack.id)


@dataclass(frozen=True, slots=True)
class _ReadLine:
    """A line and what it is; or why it can't be sent."""

    number: int
    content: Content | Refused

    @property
    def fits_batch(self) -> bool:
        """Whether a batch carries it: there a JSON string would be text."""
        content = self.content
        return not (isinstance(content, Content) and content.kind is Kind.JSON and content.data.startswith(b'"'))


def _drafts(burst: Iterable[Line], kind: str) -> Iterator[_ReadLine]:
    for number, line in burst:
        try:
            content: Content | Refused = _classify(line, kind)
        except Refusal as refusal:
            content = Refused(refusal.message, code=refusal.code)
        yield _ReadLine(number, content)


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
