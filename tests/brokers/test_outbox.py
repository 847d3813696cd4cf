"""From other threads to the loop: the order, a delivery that fails, an answer that fails, and a loop that is closed."""

from __future__ import annotations

from functools import partial

import pytest

from oncecast.brokers.outbox import Outbox, Step


class Bench:
    """An outbox, and what its steps did."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.calls: list[Step] = []
        self.failures: list[str] = []
        self.outbox = Outbox(self.calls.append, self.failures.append)

    def fail(self) -> None:
        """Be a step that raises."""
        raise ValueError("defect")

    def say(self, *words: str) -> None:
        """Put in a delivery for each word, or an answer for one with a question mark."""
        for word in words:
            step = partial(self.seen.append, word) if word.strip("?") != "fail" else self.fail
            if word.endswith("?"):
                self.outbox.answer(step, partial(self.seen.append, f"no {word}"))
            else:
                self.outbox.deliver(step)


def test_steps_run_in_order_on_the_loop() -> None:
    """Nothing runs before the loop calls."""
    bench = Bench()
    bench.say("a", "b?", "c")
    bench.outbox.wake()
    assert (3, []) == (len(bench.outbox), bench.seen)
    for call in bench.calls:
        call()
    assert (0, ["a", "b?", "c"]) == (len(bench.outbox), bench.seen)


def test_nothing_is_acknowledged_that_was_not_delivered(caplog: pytest.LogCaptureFixture) -> None:
    """After a delivery that raises, nothing more is delivered, and every publish is refused."""
    bench = Bench()
    bench.say("a", "a?", "fail", "b?", "c", "c?")
    bench.outbox.run()
    bench.say("d", "d?", "fail")
    bench.outbox.run()
    assert ["a", "a?", "no b?", "no c?", "no d?"] == bench.seen
    assert ["a delivery failed: ValueError('defect')"] == bench.failures
    assert ["a delivery failed: nothing more is delivered"] == caplog.messages


def test_an_answer_that_fails_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the steps behind it run."""
    bench = Bench()
    bench.say("fail?", "a", "b?")
    bench.outbox.run()
    assert (["a", "b?"], []) == (bench.seen, bench.failures)
    assert ["an answer failed; the others go on"] == caplog.messages


def test_a_closed_loop_is_no_fault() -> None:
    """A thread that outlives its loop does not end in an error."""

    def closed(step: Step) -> None:
        raise RuntimeError("Event loop is closed")

    Outbox(closed, lambda reason: None).wake()
