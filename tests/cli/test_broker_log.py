"""A log as the commands use it, where the broker does what a server that works does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from oncecast.brokers.base import Broker, Done, Opening, Read
from oncecast.brokers.operable import ChannelState, LogState
from oncecast.cli.base import Failure
from oncecast.cli.broker_log import OpenLog
from oncecast.errors import Refusal, UsageError
from oncecast.message import Draft, Kind, Mark, Message, Page, Receipt, Retention, Start


class Scripted:
    """A broker that answers each read with the next of `pages`."""

    def __init__(self, *pages: Page | Refusal) -> None:
        self.pages = list(pages)

    async def inspect(self) -> LogState:
        """Return nothing of interest."""
        return LogState("scripted")

    async def channels(self) -> list[ChannelState]:
        """Return one channel."""
        return [ChannelState("a", 2, 1, 9)]

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Keep all."""
        return ChannelState(channel)

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Answer at once."""
        done(self.pages.pop(0))

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Acknowledge."""
        done([Receipt("e", 1, "broker")] * len(drafts))


def log_of(*pages: Page | Refusal) -> OpenLog:
    """A log whose head is 9."""
    log = OpenLog(cast(Broker, Scripted(*pages)))
    log.begin(Opening("e", 9))
    return log


def page(after: int, upto: int, *numbers: int, mark: int = 0) -> Page:
    """A page of the channel a."""
    messages = [Message(number, "a", b"1", Kind.JSON, None, 1.0) for number in numbers]
    return Page(after, messages, upto, {"a": Mark(mark, 1.0)})


async def numbers(log: OpenLog) -> list[int]:
    """Read all."""
    return [message.seq async for message in log.messages()]


async def test_messages_above_the_head_are_left_out() -> None:
    """What was published since the log was opened is not of this export."""
    assert [1, 9] == await numbers(log_of(page(0, 4, 1), page(4, 12, 9, 11)))


async def test_trimmed_while_it_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """What is gone since the first page is said, so that the export is not taken to be whole."""
    assert [1, 9] == await numbers(log_of(page(0, 4, 1, mark=0), page(4, 9, 9, mark=7)))
    assert "Warning: messages of a were trimmed while they were read\n" == capsys.readouterr().err
    assert [9] == await numbers(log_of(page(0, 9, 9, mark=7)))
    assert "" == capsys.readouterr().err  # they were gone before


async def test_a_page_that_leads_nowhere() -> None:
    """The command ends at such a page, as it would read it for ever."""
    with pytest.raises(Failure, match="can't be read on after 4"):
        await numbers(log_of(page(0, 4, 1), page(4, 4)))


async def test_a_refused_read() -> None:
    """The refusal is raised."""
    with pytest.raises(Refusal, match="Not now"):
        await numbers(log_of(Refusal("unavailable", "Not now.")))


def test_another_log_in_its_place() -> None:
    """A log that is replaced while it is open is noticed; the same one is not another."""
    log = log_of()
    log.begin(Opening("e", 12))
    assert ("e", 12) == (log.epoch, log.head)
    with pytest.raises(UsageError, match="the log e is gone, and f is in its place"):
        log.begin(Opening("f"))


def test_what_the_broker_says_beside() -> None:
    """Nothing of it changes the log."""
    log = log_of()
    log.receive(())
    log.advance(20)
    log.skip(20)
    log.hole(9, 20)
    log.wanted((), 20)
    log.away("gone")
    log.back()
    log.fail("lost")
    assert ("e", 9) == (log.epoch, log.head)


def test_a_broker_that_can_not_be_asked() -> None:
    """One line says so."""
    with pytest.raises(Failure, match="can't be asked for its log"):
        OpenLog(cast(Broker, cast(Any, object())))
