"""The measurement of obstacles: its command, what it promises, and that it notices a broken stream."""

from __future__ import annotations

import re

import pytest

from . import client_matrix
from .client_matrix import Result, broken_promises, main, measure, measure_all
from .matrix_listeners import Heard, python


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line for each client and row, with the transports that were used."""
    assert 0 == main(["--scale", "0.02", "--client", "python", "--client", "node", "none", "websocket-403"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = ["none", "websocket-403"]
    assert [[client, row] for client in ("python", "node") for row in rows] == [line[:2] for line in lines]
    way = " ".join(lines[1])
    assert re.search(r" websocket( → sse → websocket)+$", way), way  # on a busy machine it may go down once more


def result(row: str, first: float, back: float = 1.0) -> Result:
    """What a row was measured with."""
    return Result(row, first, back, 1, ("websocket",))


def test_what_is_promised(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One row's first message may be late; a second one, a very late one and a late return fail the command."""
    good = [result("a", 1.0), result("b", 9.0), result("c", 4.9, 59.0)]
    assert [] == broken_promises(good)
    bad = [result("a", 5.1), result("b", 10.1), result("c", 1.0, 61.0)]
    expected = ["c: back after 61.0 s", "a: the first message after 5.1 s", "b: the first message after 10.1 s"]
    assert expected == broken_promises(bad)

    async def measured(*arguments: object) -> list[Result]:
        return bad

    monkeypatch.setattr(client_matrix, "_measure", measured)
    assert 1 == main(["--client", "python"])
    assert "later than promised: python c: back after 61.0 s" in capsys.readouterr().err


async def test_a_row_that_is_late_is_measured_again_alone() -> None:
    """A row that is late each time is a fault; one that is late beside others is none."""
    times = {"a": [1.0], "b": [9.0, 1.0], "c": [9.0, 8.0, 7.0]}

    async def measured(row: str) -> Result:
        return result(row, times[row].pop(0))

    def judge(found: Result) -> list[str]:
        return ["late"] if found.first > 5 else []

    assert [f"late: {result('c', 7.0)}"] == await measure_all("abc", measured, judge)
    assert {"a": [], "b": [], "c": []} == times


@pytest.mark.parametrize("harm", ["twice", "gap", "never"])
async def test_a_broken_stream_is_noticed(monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """A message that comes twice or never, or a gap, as if the client had not kept its place, fails the measurement."""
    note = Heard.note

    def broken(heard: Heard, kind: str, value: object = None) -> None:
        if kind == "message" and value == 3:
            if harm != "never":
                note(heard, kind, value)
            if harm != "twice":
                kind, value = ("gap", "slow") if harm == "gap" else (kind, 4)
        note(heard, kind, value)

    monkeypatch.setattr(Heard, "note", broken)
    async with python() as listen:
        with pytest.raises(AssertionError, match="or not in their order"):
            await measure("none", listen, scale=0.05, blocked=1.0)


def test_what_an_application_may_say() -> None:
    """What is no note is a mistake of the application's."""
    with pytest.raises(AssertionError, match="the application says message"):
        Heard().note("message", "3")
