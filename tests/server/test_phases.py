"""The phases of a connection: the table is whole, and what is not in it is a defect."""

from __future__ import annotations

from typing import get_args

import pytest

from oncecast.server.phases import MOVES, ConnectionEvent, Phase, after


def test_each_phase_has_its_row() -> None:
    """The table has every phase and uses every event; nothing follows CLOSED, and a connection can always be lost."""
    assert set(Phase) == set(MOVES)
    assert set(get_args(ConnectionEvent)) == {event for row in MOVES.values() for event in row}
    assert {} == MOVES[Phase.CLOSED]
    assert all(Phase.CLOSED is row["lost"] for phase, row in MOVES.items() if phase is not Phase.CLOSED)


def test_what_is_not_in_the_table_is_a_defect() -> None:
    """An event of the table moves, any other raises."""
    assert Phase.WAITING is after(Phase.READING, "postponed")
    with pytest.raises(AssertionError, match="a connection that is streaming can't be answered"):
        after(Phase.STREAMING, "answered")
