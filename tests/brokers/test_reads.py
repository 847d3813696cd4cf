"""The reads that wait: the order in which they are served, their bound, and that each is answered once."""

from __future__ import annotations

import threading

import pytest

from oncecast.brokers import reads as reads_module
from oncecast.brokers.base import ANSWER_SECONDS
from oncecast.brokers.reads import COSTLY_MESSAGES, NEW_IN_A_ROW, OVERRUN, UNREADABLE, ReadQueue, ReadRequest
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, Page, Start, StartKind


def request(name: str, answers: list[Page | Refusal] | None = None) -> ReadRequest:
    """A read of one channel."""
    kept: list[Page | Refusal] = [] if answers is None else answers
    return ReadRequest((name,), EARLIEST, 1, 1, kept.append, now=100.0)


def names_of(queue: ReadQueue, count: int) -> str:
    """The channels of the reads that are served next; one in capitals is costly, and is put back."""
    found = ""
    for _ in range(count):
        served = queue.take()
        assert served is not None
        found += served.channels[0]
        if served.channels[0].isupper():
            queue.put_back(served)
    return found


def test_a_new_read_goes_before_those_that_cost_much() -> None:
    """These go on in turns while nothing is new, and a flood of new ones does not stop them."""
    queue = ReadQueue()
    for name in "ABc":
        queue.put(request(name))
    assert "ABc" == names_of(queue, 3)
    assert "ABAB" == names_of(queue, 4)
    queue.put(request("d"))
    assert "dA" == names_of(queue, 2)
    for name in "efghijklm":
        queue.put(request(name))
    assert 4 == NEW_IN_A_ROW
    assert "efghBijklAm" == names_of(queue, 11)
    assert 2 == len(queue)


def test_a_read_that_asks_for_much_waits_from_the_start() -> None:
    """It has no first slice before those that cost little, however many such reads came first."""
    queue = ReadQueue()
    last = [Start(StartKind.LAST, number=number) for number in (COSTLY_MESSAGES, COSTLY_MESSAGES / 2, 10**17)]
    for start, names in zip(last, (("A", "B"), ("c", "d"), ("E",)), strict=True):
        queue.put(ReadRequest(names, start, 1, 1, lambda answer: None, now=0.0))
    queue.put(request("f"))
    assert "cfAEAE" == names_of(queue, 6)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts costly reads too."""
    monkeypatch.setattr(reads_module, "PENDING_READS", 2)
    queue = ReadQueue()
    answers: list[Page | Refusal] = []
    queue.put(request("A"))
    names_of(queue, 1)
    queue.put(request("b"))
    queue.put(request("c", answers))
    assert ([OVERRUN], 2) == (answers, len(queue))


def test_a_queue_that_is_closed_ends_its_thread() -> None:
    """It waits for nothing any more, also if what was there has been refused meanwhile."""
    queue = ReadQueue()
    taken: list[ReadRequest | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.close()
    thread.join()
    queue.close()
    queue.put(request("a"))
    queue.refuse(UNREADABLE)
    assert [None, None] == [*taken, queue.take()]


def test_each_read_is_refused_once(caplog: pytest.LogCaptureFixture) -> None:
    """New and costly reads are refused once each, also behind a callback that raises."""
    queue = ReadQueue()
    answers: list[Page | Refusal] = []

    def fail(answer: Page | Refusal) -> None:
        raise RuntimeError("defect")

    costly = request("A", answers)
    queue.put(costly)
    names_of(queue, 1)
    queue.put(ReadRequest(("a",), EARLIEST, 1, 1, fail, now=0.0))
    queue.put(request("b", answers))
    queue.refuse(UNREADABLE)
    costly.answer(OVERRUN)
    assert ([UNREADABLE] * 2, 0) == (answers, len(queue))
    assert ["an answer failed; the others go on"] == caplog.messages


def test_a_costly_read_may_be_refused_while_it_is_taken() -> None:
    """The thread then waits for the next read."""
    queue = ReadQueue()
    queue.put_back(request("A"))

    class Emptied(list[ReadRequest]):
        """What waits, where the other thread refuses it in between."""

        def popleft(self) -> ReadRequest:
            """Find nothing any more."""
            self.clear()
            queue.put(request("b"))
            raise IndexError

    queue._costly = Emptied(queue._costly)  # type: ignore[assignment]
    served = queue.take()
    assert served is not None
    assert ("b",) == served.channels


def test_a_read_has_a_deadline() -> None:
    """It expires `ANSWER_SECONDS` after it was asked for."""
    read = request("a")
    assert [False, True] == [read.expired(100.0 + ANSWER_SECONDS + seconds) for seconds in (-0.1, 0)]
