"""The publishes on their way to a broker on another machine, with a session that is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
import pytest_asyncio

from oncecast.brokers import remote_publishes
from oncecast.brokers.base import STOPPING, Outcome
from oncecast.brokers.intake import Intake
from oncecast.brokers.meters import Meters
from oncecast.brokers.remote_publishes import FLYING, UNKNOWN, RemotePublishes
from oncecast.brokers.session import Lost, RemoteSession
from oncecast.errors import Refusal
from oncecast.message import Draft, Receipt

REFUSAL = Refusal("unavailable", "not now")


class Batches:
    """A session that keeps each batch and its answer. `fault` is raised instead, if there is one."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.answers: list[asyncio.Future[Sequence[Outcome]]] = []
        self.fault: Exception | None = None

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Keep the batch."""
        if self.fault is not None:
            raise self.fault
        self.sent.append([draft.data for draft in drafts])
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


class Bench:
    """Publishes, two drafts to a batch, a session, and the task that sends."""

    def __init__(self) -> None:
        self.meters = Meters()
        self.publishes = RemotePublishes(Intake(2), self.meters)
        self.batches = Batches()
        self.sending: asyncio.Task[None] | None = None

    def send(self) -> asyncio.Task[None]:
        """Begin to send."""
        self.sending = asyncio.create_task(self.publishes.send(cast(RemoteSession, self.batches)))
        return self.sending

    def put(self, *data: bytes) -> asyncio.Future[Sequence[Outcome]]:
        """Publish."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        if self.publishes.intake.put([Draft("a", each) for each in data], answered.set_result):
            self.publishes.waiting.set()
        return answered

    async def until_sent(self, number: int) -> None:
        """Wait until as many batches are sent."""
        async with asyncio.timeout(30):
            while len(self.batches.sent) < number:  # noqa: ASYNC110 - the session has no event for it
                await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Publishes, whose task is ended behind the test."""
    bench = Bench()
    yield bench
    if bench.sending is not None:
        bench.sending.cancel()
        await asyncio.gather(bench.sending, return_exceptions=True)


async def until_answered(future: asyncio.Future[Any]) -> Any:
    """Wait for an answer, for a bounded time."""
    return await asyncio.wait_for(future, 30)


async def test_each_publish_gets_its_own_outcomes(bench: Bench) -> None:
    """The outcomes of a batch are cut as its publishes were, and the meters count them."""
    one, two = bench.put(b"1"), bench.put(b"2", b"3")
    bench.send()
    await bench.until_sent(1)
    receipts = [Receipt("e", 7, "broker"), Receipt("e", 8, "broker")]
    bench.batches.answers[0].set_result([REFUSAL, *receipts])
    assert ([REFUSAL], receipts) == (await until_answered(one), await until_answered(two))
    assert (8, 1) == (bench.meters.head, bench.meters.refused)


async def test_a_bounded_number_of_batches_is_under_way(bench: Bench) -> None:
    """Batches are sent in order, and the one past `FLYING` once another is answered."""
    bench.send()
    for number in range(FLYING + 1):
        bench.put(b"%d" % number, b"")
    await bench.until_sent(FLYING)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [[b"%d" % number, b""] for number in range(FLYING)] == bench.batches.sent
    bench.batches.answers[1].set_result([REFUSAL, REFUSAL])
    await bench.until_sent(FLYING + 1)
    assert [b"%d" % FLYING, b""] == bench.batches.sent[-1]


async def test_a_batch_that_is_never_acknowledged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused at its deadline, as what became of it is not known, and so are those under way behind it."""
    monkeypatch.setattr(remote_publishes, "APPEND_SECONDS", 0.01)
    first, second = bench.put(b"1", b"2"), bench.put(b"3")
    with pytest.raises(Lost, match="did not acknowledge in time"):
        await until_answered(bench.send())
    assert ([UNKNOWN, UNKNOWN], [UNKNOWN]) == (await until_answered(first), await until_answered(second))
    assert 3 == bench.meters.refused


async def test_a_batch_that_fails(bench: Bench) -> None:
    """Its error is raised once the other batches under way are answered; what waits is kept."""
    flying = [bench.put(b"1", b"2") for _ in range(FLYING)]
    waiting = bench.put(b"3")
    sending = bench.send()
    await bench.until_sent(FLYING)
    bench.batches.answers[-1].set_exception(Lost("gone"))
    with pytest.raises(Lost, match="gone"):
        await until_answered(sending)
    assert [[UNKNOWN, UNKNOWN]] * FLYING == [each.result() for each in flying]
    assert (False, 1) == (waiting.done(), len(bench.publishes.intake))


async def test_a_batch_that_can_not_be_sent(bench: Bench) -> None:
    """If the session raises, the publishes are refused, and the error is raised."""
    bench.batches.fault = RuntimeError("defect")
    answered = bench.put(b"1")
    with pytest.raises(RuntimeError, match="defect"):
        await until_answered(bench.send())
    assert [UNKNOWN] == await until_answered(answered)


async def test_a_task_that_is_cancelled_answers_what_it_has_sent(bench: Bench) -> None:
    """The publishers are told to publish again."""
    answered = bench.put(b"1")
    sending = bench.send()
    await bench.until_sent(1)
    sending.cancel()
    assert [UNKNOWN] == await until_answered(answered)


async def test_a_callback_with_a_defect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and keeps no other publish of the batch from its answer."""

    def fail(outcomes: Sequence[Outcome]) -> None:
        raise RuntimeError("defect")

    bench.publishes.intake.put([Draft("a", b"1")], fail)
    answered = bench.put(b"2")
    bench.send()
    await bench.until_sent(1)
    bench.batches.answers[0].set_result([REFUSAL, REFUSAL])
    assert [REFUSAL] == await until_answered(answered)
    assert 1 == caplog.text.count("an answer could not be delivered")


async def test_all_that_wait_are_refused(bench: Bench) -> None:
    """`refuse` answers what was not sent, and counts it."""
    answered = bench.put(b"1", b"2")
    bench.publishes.refuse(STOPPING)
    assert ([STOPPING, STOPPING], 2, 0) == (answered.result(), bench.meters.refused, len(bench.publishes.intake))
