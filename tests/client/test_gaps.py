"""What becomes of gaps: counted, passed on, raised, or a warning; never passed in silence."""

from __future__ import annotations

import logging

import pytest

from oncecast import Gap, GapError, UsageError
from oncecast.client.gaps import GapWatch

GAP = Gap(channel="c", reason="expired", missed_from="e-3", missed_to="e-7", cursor="e-7")
OPEN = Gap(channel="c", reason="epoch", cursor="f-1")


def watch(passed: list[Gap], *, heard: bool = False) -> GapWatch:
    """A watch whose client has listeners if `heard`."""
    return GapWatch(passed.append, lambda: heard)


def test_each_gap_is_counted_and_sent() -> None:
    """The number, the last one, and a notice for each."""
    passed: list[Gap] = []
    called: list[Gap] = []
    mine = watch(passed)
    mine.on_gap = called.append
    for gap in (GAP, OPEN):
        mine.taken(gap)
    assert (2, OPEN, [GAP, OPEN], [GAP, OPEN]) == (mine.count, mine.last, passed, called)


@pytest.mark.parametrize(
    "gap, words",
    [
        (GAP, "channel c has a gap (expired): messages e-3 to e-7 were missed"),
        (OPEN, "channel c has a gap (epoch): messages the beginning to an unknown end were missed"),
    ],
)
def test_a_gap_that_is_not_handled_is_a_warning(caplog: pytest.LogCaptureFixture, gap: Gap, words: str) -> None:
    """An unhandled gap gives one warning with its channel, range and reason, and what to do."""
    watch([]).skipped(gap)
    (record,) = caplog.records
    assert (logging.WARNING, "oncecast.client") == (record.levelno, record.name)
    assert record.getMessage().startswith(words)
    assert "handle gaps by on_gap or events()" in record.getMessage()


def test_a_gap_that_is_handled_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """With `on_gap`, or a listener of the client, the application knows."""
    mine = watch([])
    mine.on_gap = lambda gap: None
    mine.skipped(GAP)
    watch([], heard=True).skipped(GAP)
    assert [] == caplog.records


def test_a_gap_can_be_raised() -> None:
    """The exception has the gap, and its text says what to do."""
    mine = watch([])
    mine.on_gap = "raise"
    mine.taken(GAP)
    with pytest.raises(GapError, match="messages e-3 to e-7 were missed") as caught:
        mine.skipped(GAP)
    assert GAP is caught.value.gap


def test_a_callback_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the item after the gap is yielded."""

    def fail(gap: Gap) -> None:
        raise ZeroDivisionError

    mine = watch([])
    mine.on_gap = fail
    mine.taken(GAP)
    assert [logging.ERROR] == [record.levelno for record in caplog.records]


@pytest.mark.parametrize("on_gap", [1, "warn", []])
def test_what_is_no_callback(on_gap: object) -> None:
    """`on_gap` raises for a value that is no function."""
    with pytest.raises(UsageError, match="on_gap"):
        watch([]).on_gap = on_gap  # type: ignore[assignment]


def test_a_coroutine_function_is_no_callback() -> None:
    """`on_gap` raises for it, as it would never be awaited."""

    async def on_gap(gap: Gap) -> None:
        pass

    with pytest.raises(UsageError, match="on_gap is called and not awaited"):
        watch([]).on_gap = on_gap
