"""Pages of a cluster: a replica that is behind its leader is waited for, and never taken for the end of a channel."""

from __future__ import annotations

from typing import Any, cast

import pytest

from oncecast.brokers.lives import Lives, first_life
from oncecast.brokers.nats import pages
from oncecast.brokers.nats.asking import Record
from oncecast.brokers.nats.pages import StreamPages
from oncecast.brokers.nats.stream import Stream
from oncecast.brokers.session import Lost
from oncecast.message import Kind, Message

LIVES = Lives([first_life("e", "server", 0.0)])


class Replicated:
    """A stream whose leader has a message at offset 12, of second 100."""

    name = "s"
    clustered = True

    def subject(self, channel: str) -> str:
        """Return its subject."""
        return f"s.m.{channel}"

    async def newest(self, channel: str) -> int:
        """Return the newest offset."""
        return 12

    async def get(self, question: dict[str, Any]) -> Record:
        """Return the newest record."""
        return Record("s.m.a", b"1 0 0\nx", 100.0, 12)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no time between two tries."""
    monkeypatch.setattr(pages, "BEHIND_SECONDS", 0.0)


def reader(monkeypatch: pytest.MonkeyPatch, name: str, answers: list[Any]) -> StreamPages:
    """Return a reader that is answered so by its replica, one answer after the other; the last one is repeated."""
    made = StreamPages(cast(Stream, Replicated()), LIVES, stamped=False, foreign=pytest.fail)

    async def answer(*arguments: Any) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(made, name, answer)
    return made


def message(seq: int) -> Message:
    """A message."""
    return Message(seq, "a", b"x", Kind.TEXT, None, 100.0)


async def test_a_range_that_lacks_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The range is read again until it has the leader's newest message."""
    whole = [message(11), message(12)]
    made = reader(monkeypatch, "_read_range", [([], False, 0), ([message(11)], False, 11), (whole, False, 12)])
    assert (whole, False) == await made._range("a", 10, 12, 100, 1000)


async def test_a_range_with_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that its limit cuts is not read again, as a replica has the beginning of the log."""
    made = reader(monkeypatch, "_read_range", [([message(11)], True, 11)])
    assert ([message(11)], True) == await made._range("a", 10, 12, 1, 1000)


async def test_a_replica_that_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is lost, and the next one may be on another server."""
    made = reader(monkeypatch, "_read_range", [([message(11)], False, 11)])
    with pytest.raises(Lost, match="a replica of the stream s is behind its leader"):
        await made._range("a", 10, 12, 100, 1000)
    made = reader(monkeypatch, "_read_since", [None])
    with pytest.raises(Lost, match="a replica of the stream s is behind its leader"):
        await made._since("a", 99.0)


async def test_since_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer of a replica is asked for again, unless the leader's newest message is older than the time."""
    made = reader(monkeypatch, "_read_since", [None, None, 12])
    assert 12 == await made._since("a", 99.0)
    made = reader(monkeypatch, "_read_since", [None])
    assert await made._since("a", 101.0) is None
