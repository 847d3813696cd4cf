"""What comes to the log while a node has no connection: handed over in order, or left to the history."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oncecast.brokers import handover
from oncecast.message import Draft, Retention
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.pipe import FaultyPipe
from tests.brokers.redis.sites import Sites, client, works

RANGE = 32  # entries that are read at once


class Apart:
    """A node behind a pipe, and one that reaches the server. From `part` to `join` the first one hears nothing."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.server = sites.server()
        self.pipe = FaultyPipe(("127.0.0.1", self.server.port))
        sites.driver.run(self.pipe.start())
        self.other = sites.started(f"redis://127.0.0.1:{self.server.port}")
        self.node = sites.started(f"redis://127.0.0.1:{self.pipe.port}", "a", "b")

    def part(self) -> None:
        """Cut the node off."""
        self.pipe.target = ("127.0.0.1", 9)
        self.pipe.cut()
        self.sites.until_away(self.node)

    def join(self) -> None:
        """Let the node connect."""
        self.pipe.target = ("127.0.0.1", self.server.port)
        self.sites.until_back(self.node)

    def read(self) -> list[int]:
        """Return what a reader of the history gets."""
        page = self.node.page("ab", self.node.after(0))
        assert page is not None
        return [message.seq for message in page.messages]


@pytest.fixture
def apart(sites: Sites) -> Iterator[Apart]:
    """Two nodes."""
    apart = Apart(sites)
    yield apart
    apart.node.stop()
    sites.driver.run(apart.pipe.close())


def publish(node: BrokerBench, count: int, size: int = 1) -> list[int]:
    """Publish messages, to the channels in turns; return the numbers of those to `a` and `b`."""
    drafts = [Draft("abc"[number % 3], bytes(size)) for number in range(count)]
    receipts = node.receipts(*drafts)
    return [receipt.seq for receipt, draft in zip(receipts, drafts, strict=True) if draft.channel != "c"]


def test_all_of_it_is_handed_over(apart: Apart) -> None:
    """In the order of the log, over all channels that are wanted, whole pages of it, once; then all goes on."""
    first = works(apart.node)
    apart.part()
    missed = publish(apart.other, 3 * (2 * RANGE + 5))
    apart.join()
    assert apart.node.seqs() == [first.seq, *missed]
    last = works(apart.node)
    assert apart.node.seqs() == [first.seq, *missed, last.seq]
    assert (apart.node.skipped, apart.node.holes) == ([], [])
    assert apart.read() == apart.node.seqs()


def test_what_is_no_message_is_passed_over(apart: Apart, caplog: pytest.LogCaptureFixture) -> None:
    """An entry of somebody else in a stream, and one with an id that is not ours: with a line in the log."""
    apart.part()
    (before,) = publish(apart.other, 1)
    at = client(apart.server.port)
    seq = at.hincrby("{oncecast}:h", "seq", 2)
    at.xadd("{oncecast}:s:a", {"foreign": "1"}, id=f"{seq - 1}-0")
    at.xadd("{oncecast}:s:a", {"d": "x", "k": "1", "e": "", "t": "1"}, id=f"{seq}-7")
    (after,) = publish(apart.other, 1)
    apart.join()
    assert apart.node.seqs() == [before, after]
    assert caplog.text.count("an entry of the channel a: ") == 2
    assert [before, after] == apart.read()


def test_a_page_that_ends_with_what_is_no_message(apart: Apart) -> None:
    """An id that is not ours ends a page as well as any other: the next one begins behind it."""
    at = client(apart.server.port)
    (before,) = publish(apart.other, 1)
    seq = at.hincrby("{oncecast}:h", "seq", 1)
    at.xadd("{oncecast}:s:a", {"d": "x", "k": "1", "e": "", "t": "1"}, id=f"{seq}-7")
    (after,) = publish(apart.other, 1)
    first = apart.other.page("a", apart.other.after(0), 2)
    assert first is not None
    assert ([before], seq) == ([message.seq for message in first.messages], first.upto)
    second = apart.other.page("a", apart.other.after(first.upto), 2)
    assert second is not None
    assert [after] == [message.seq for message in second.messages]


@pytest.mark.parametrize(("bound", "size"), [("CAUGHT_UP", 1), ("CAUGHT_UP_BYTES", 10_000)])
def test_too_much_is_left_to_the_history(apart: Apart, monkeypatch: pytest.MonkeyPatch, bound: str, size: int) -> None:
    """Past a number of messages or bytes the node skips, and reads them from the history."""
    monkeypatch.setattr(handover, bound, 10 * size)
    apart.part()
    missed = publish(apart.other, 60, size)
    apart.join()
    assert (apart.node.seqs(), apart.node.holes) == ([], [])
    assert apart.node.skipped[0] >= missed[-1]
    last = works(apart.node)
    assert apart.node.seqs() == [last.seq]
    assert apart.read() == [*missed, last.seq]


def test_what_is_trimmed_meanwhile(apart: Apart) -> None:
    """The node can't be handed the rest as if it were all: it reads the history, which has the mark."""
    apart.part()
    missed = publish(apart.other, 30)
    trim = apart.other.broker.trim  # type: ignore[attr-defined]
    apart.sites.driver.run(trim("a", Retention(2)))
    apart.join()
    assert (apart.node.seqs(), len(apart.node.skipped)) == ([], 1)
    page = apart.node.page("a", apart.node.after(0))
    assert page is not None
    assert [message.seq for message in page.messages] == missed[-4::2]
    assert page.marks["a"].seq == missed[-6]


def test_what_is_unwanted_meanwhile_is_confirmed_anew(apart: Apart) -> None:
    """A channel that is unwanted and wanted again while there is no connection is not taken for whole."""
    apart.part()
    apart.node.broker.unwant(["a"])
    missed = publish(apart.other, 1)
    apart.node.broker.want(["a"])
    apart.node.confirmed.clear()
    apart.join()
    apart.sites.wait(lambda: "a" in apart.node.confirmed, "it is confirmed again")
    assert apart.node.confirmed["a"] >= missed[0]
    last = works(apart.node)
    assert apart.node.seqs()[-1] == last.seq
