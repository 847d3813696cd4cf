"""The publishes that wait: their batches and bounds, and that each is answered once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oncecast.brokers import intake as intake_module
from oncecast.brokers.base import Outcome
from oncecast.brokers.intake import Batch, Intake, refuse
from oncecast.errors import Refusal
from oncecast.message import Draft

REFUSAL = Refusal("unavailable", "no")


def drafts(count: int, size: int = 1) -> list[Draft]:
    """Some drafts with so many bytes each."""
    return [Draft("a", bytes(size)) for _ in range(count)]


def test_publishes_are_taken_in_order_up_to_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends with the publish that meets a bound, so it has one at least, however large."""
    monkeypatch.setattr(intake_module, "BATCH_BYTES", 10)
    intake = Intake(most_drafts=3)
    for count, size in ((2, 1), (2, 1), (1, 1), (1, 50), (1, 1)):
        assert intake.put(drafts(count, size), lambda outcomes: None)
    taken = []
    while intake:
        taken.append([len(batch.drafts) for batch in intake.take()])
    assert [[2, 2], [1, 1], [1]] == taken
    assert ([], 0) == (intake.take(), len(intake))


def test_an_empty_publish_waits_for_nothing() -> None:
    """An empty publish is answered at once."""
    answers: list[Sequence[Outcome]] = []
    assert not Intake().put([], answers.append)
    assert [[]] == answers


@pytest.mark.parametrize("bound", ["PENDING_DRAFTS", "PENDING_BYTES"])
def test_past_a_bound_a_publish_is_refused(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """A publish that was taken or refused gives its room back."""
    monkeypatch.setattr(intake_module, bound, 2)
    intake = Intake()
    answers: list[Outcome] = []
    for _ in range(2):
        assert intake.put(drafts(2), answers.extend)
        assert not intake.put(drafts(1), lambda outcomes: None)
        intake.take()
    assert intake.put(drafts(2), answers.extend)
    intake.refuse(REFUSAL)
    assert ([REFUSAL] * 2, 0) == (answers, len(intake))
    assert intake.put(drafts(2), answers.extend)


def test_a_batch_is_answered_once() -> None:
    """A late answer of the thread to a refused batch is dropped."""
    answers: list[Sequence[Outcome]] = []
    batch = Batch(drafts(2), answers.append, 2)
    batch.refuse(REFUSAL)
    batch.answer([])
    batch.refuse(REFUSAL)
    assert [[REFUSAL] * 2] == answers


def test_a_callback_that_raises_keeps_no_other_from_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the next publish is refused."""
    answers: list[Outcome] = []

    def fail(outcomes: Sequence[Outcome]) -> None:
        raise RuntimeError("defect")

    refuse([Batch(drafts(1), fail, 1), Batch(drafts(1), answers.extend, 1)], REFUSAL)
    assert [REFUSAL] == answers
    assert ["an answer failed; the others go on"] == caplog.messages


class Emptied(list[Batch]):
    """What waits, where the other thread takes the last one just before it would be taken here."""

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Batch:
        """There is none any more."""
        raise IndexError


def test_the_other_thread_may_be_faster() -> None:
    """The thread that takes a publish first answers it."""
    intake = Intake()
    intake._pending = Emptied()  # type: ignore[assignment]
    intake.refuse(REFUSAL)
    assert [] == intake.take()
