"""The reads that wait for a broker on another machine, with a session that is made up and a clock that is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
import pytest_asyncio

from oncecast.brokers import remote_reads
from oncecast.brokers.base import ANSWER_SECONDS, AWAY, STOPPING
from oncecast.brokers.reads import DEFECT, LATE, OVERRUN
from oncecast.brokers.remote_reads import RemoteReads
from oncecast.brokers.session import Lost, RemoteSession
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, Page, Start

PAGE = Page(0, [], 0, {}, {})


class Pages:
    """A session that answers each read with `answer`: a page, an error to raise, or an event to wait for."""

    def __init__(self) -> None:
        self.answer: Page | Exception | asyncio.Event = PAGE
        self.asked: list[Sequence[str]] = []
        self.begun = asyncio.Event()  # it was asked for a page

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Answer."""
        self.asked.append(channels)
        self.begun.set()
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
        elif isinstance(self.answer, Exception):
            raise self.answer
        return PAGE


class Bench:
    """Reads, a session, and the tasks that were started for them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = RemoteReads("stand-in", lambda: self.now)
        self.pages = Pages()
        self.tasks: list[asyncio.Task[None]] = []

    def answer(self) -> asyncio.Task[None]:
        """Begin to answer."""
        self.tasks.append(asyncio.create_task(self.reads.answer(cast(RemoteSession, self.pages))))
        return self.tasks[-1]

    def ask(self, *channels: str) -> asyncio.Future[Page | Refusal]:
        """Put a read."""
        answered: asyncio.Future[Page | Refusal] = asyncio.get_running_loop().create_future()
        self.reads.put(channels, EARLIEST, 1, 1, answered.set_result)
        return answered


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Reads, whose tasks are ended behind the test."""
    bench = Bench()
    yield bench
    for task in bench.tasks:
        task.cancel()
    await asyncio.gather(*bench.tasks, return_exceptions=True)


async def until_answered(future: asyncio.Future[Any]) -> Any:
    """Wait for an answer, for a bounded time."""
    return await asyncio.wait_for(future, 30)


async def test_lines_take_turns(bench: Bench) -> None:
    """Reads of one list of channels are answered in order, and another list's read is not behind all of them."""
    answers = [bench.ask(*channels) for channels in (("a",), ("a",), ("a",), ("b", "c"))]
    bench.answer()
    assert [PAGE] * 4 == [await until_answered(each) for each in answers]
    assert [("a",), ("b", "c"), ("a",), ("a",)] == bench.pages.asked


async def test_an_answer_is_what_the_session_says(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A page and a refusal are handed on; a defect is logged, and the read is refused; the next read is answered."""
    refusal = Refusal("unavailable", "not now")
    bench.answer()
    for said, expected in ((PAGE, PAGE), (refusal, refusal), (RuntimeError("defect"), DEFECT), (PAGE, PAGE)):
        bench.pages.answer = said
        assert expected == await until_answered(bench.ask("a"))
    assert 1 == caplog.text.count("the broker stand-in could not read a page")


async def test_a_page_that_does_not_come(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read is refused after `READ_SECONDS`, and the next one is asked of the same session."""
    monkeypatch.setattr(remote_reads, "READ_SECONDS", 0.01)
    bench.pages.answer = asyncio.Event()
    bench.answer()
    assert LATE == await until_answered(bench.ask("a"))
    bench.pages.answer = PAGE
    assert PAGE == await until_answered(bench.ask("a"))


async def test_a_session_that_is_lost(bench: Bench) -> None:
    """Its read is refused and its error raised; the read behind waits for the next session."""
    bench.pages.answer = Lost("gone")
    asked, waiting = bench.ask("a"), bench.ask("a")
    with pytest.raises(Lost, match="gone"):
        await until_answered(bench.answer())
    assert (AWAY, False) == (await until_answered(asked), waiting.done())
    bench.pages.answer = PAGE
    bench.answer()
    assert PAGE == await until_answered(waiting)


async def test_a_task_that_is_cancelled_answers_its_read(bench: Bench) -> None:
    """The read that the session was asked for is refused."""
    bench.pages.answer = asyncio.Event()
    asked = bench.ask("a")
    task = bench.answer()
    await asyncio.wait_for(bench.pages.begun.wait(), 30)
    task.cancel()
    assert AWAY == await until_answered(asked)


async def test_a_callback_with_a_defect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next read is answered."""

    def fail(answer: Page | Refusal) -> None:
        raise RuntimeError("defect")

    bench.reads.put(["a"], EARLIEST, 1, 1, fail)
    bench.answer()
    assert PAGE == await until_answered(bench.ask("a"))
    assert 1 == caplog.text.count("an answer could not be delivered")


async def test_the_number_of_reads_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read past the bound is refused at once, whatever its channels, until another one is taken."""
    monkeypatch.setattr(remote_reads, "PENDING_READS", 3)
    waiting = [bench.ask(channel) for channel in ("a", "a", "b")]
    assert OVERRUN == bench.ask("c").result()
    bench.answer()
    assert [PAGE] * 3 == [await until_answered(each) for each in waiting]
    assert PAGE == await until_answered(bench.ask("c"))


async def test_reads_behind_one_that_hangs_expire(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose time is over are refused, the one that came later stays, and the bound has room again."""
    monkeypatch.setattr(remote_reads, "EXPIRE_SECONDS", 0.001)
    monkeypatch.setattr(remote_reads, "PENDING_READS", 3)
    late = [bench.ask(channel) for channel in ("a", "b")]
    bench.now = ANSWER_SECONDS
    later = bench.ask("a")
    bench.tasks.append(asyncio.create_task(bench.reads.expire()))
    assert [LATE] * 2 == [await until_answered(each) for each in late]
    assert not later.done()
    more = [bench.ask("c") for _ in range(2)]
    assert OVERRUN == bench.ask("c").result()
    bench.answer()
    assert [PAGE] * 3 == [await until_answered(each) for each in (later, *more)]


async def test_a_read_that_is_late_when_its_turn_comes(bench: Bench) -> None:
    """It is refused, and the session is not asked."""
    asked = bench.ask("a")
    bench.now = ANSWER_SECONDS
    bench.answer()
    assert LATE == await until_answered(asked)
    assert [] == bench.pages.asked


async def test_all_that_wait_are_refused(bench: Bench) -> None:
    """`refuse` answers the reads of every line, and leaves none."""
    waiting = [bench.ask(channel) for channel in ("a", "a", "b")]
    bench.reads.refuse(STOPPING)
    assert [STOPPING] * 3 == [each.result() for each in waiting]
    bench.answer()
    assert PAGE == await until_answered(bench.ask("a"))
    assert [("a",)] == bench.pages.asked
