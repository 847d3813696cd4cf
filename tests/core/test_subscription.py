"""A subscription's states: which event leads where, and that nothing else does."""

from __future__ import annotations

from typing import get_args

import pytest

from oncecast.core.subscription import MOVES, Lag, State, Subscription, SubscriptionEvent
from oncecast.errors import Refusal
from oncecast.message import LogGap, Message


class Silent:
    """A format and a sink that do nothing."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return nothing."""
        return b""

    def block(self, parts: list[bytes]) -> bytes:
        """Return nothing."""
        return b""

    def write(self, block: bytes, /) -> None:
        """Do nothing."""

    def gap(self, gap: LogGap, /) -> None:
        """Do nothing."""

    def refuse(self, refusal: Refusal, /) -> None:
        """Do nothing."""


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", get_args(SubscriptionEvent))
def test_an_event_leads_where_the_table_says(state: State, event: SubscriptionEvent) -> None:
    """An event that the table does not have for a state is our own mistake."""
    subscription = Subscription(("a",), Silent(), Silent(), None, Lag.RESUME)
    subscription.state = state
    target = MOVES[state].get(event)
    if target is None:
        with pytest.raises(AssertionError, match=f"{state.value} can't be {event}"):
            subscription.move(event)
        assert state is subscription.state
    else:
        subscription.move(event)
        assert target is subscription.state


def test_every_state_ends_and_closed_is_the_end() -> None:
    """The table is whole, `ended` leads out of each state but CLOSED, and nothing leads out of that."""
    assert set(State) == MOVES.keys()
    assert set(get_args(SubscriptionEvent)) == {event for moves in MOVES.values() for event in moves}
    assert {} == MOVES[State.CLOSED]
    assert all(State.CLOSED is MOVES[state]["ended"] for state in State if state is not State.CLOSED)
    assert set(State) == {State.CATCHING_UP, *(target for moves in MOVES.values() for target in moves.values())}
