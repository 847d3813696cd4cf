"""The tables of states: what is true of each of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from oncecast.core import subscription
from oncecast.protocol import duplex, polls
from oncecast.server import phases
from oncecast.server.framing import websocket
from oncecast.server.process import child
from oncecast.wire import ws_connection

TABLES = [
    (subscription.State, subscription.SubscriptionEvent, subscription.MOVES),
    (phases.Phase, phases.ConnectionEvent, phases.MOVES),
    (child.WorkerState, child.WorkerEvent, child.MOVES),
    (duplex.SessionState, duplex.DuplexEvent, duplex.MOVES),
    (polls.PollState, polls.PollEvent, polls.MOVES),
    (websocket.CarrierState, websocket.CarrierEvent, websocket.MOVES),
    (ws_connection.WebSocketState, ws_connection.EndEvent, ws_connection.MOVES),
]


@pytest.mark.parametrize("states, events, moves", TABLES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_table_is_whole(
    states: type[enum.Enum], events: Any, moves: Mapping[enum.Enum, Mapping[str, enum.Enum]]
) -> None:
    """It has each state, uses each event, and ends: nothing leads out of its last state."""
    assert list(states) == list(moves)
    assert set(get_args(events)) == {event for row in moves.values() for event in row}
    assert {} == moves[list(states)[-1]]
