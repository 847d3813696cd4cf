"""The contract of a session: the example in its text, and that each session and carrier has all of it."""

from __future__ import annotations

import doctest
import inspect

import pytest

from oncecast.policy.access import ALLOW_ALL
from oncecast.protocol import base
from oncecast.protocol.base import Carrier, Duplex, Session, TransportSettings
from oncecast.protocol.events import EventStream
from oncecast.protocol.polls import WaitingPoll
from oncecast.protocol.raw import RawSession
from oncecast.protocol.v1 import V1Session
from oncecast.server.framing.event_stream import EventStreamCarrier
from oncecast.server.framing.websocket import WebSocketCarrier
from oncecast.testing.carrier import ListCarrier


def test_the_example_runs() -> None:
    """The order of calls in the contract's text prints what it says."""
    failed, tried = doctest.testmod(base)
    assert 0 == failed
    assert tried > 10


def methods(contract: type) -> set[str]:
    """Return the public names of a contract."""
    return {name for each in contract.__mro__ for name in vars(each) if not name.startswith("_")}


@pytest.mark.parametrize(
    "kind, contract",
    [
        (V1Session, Duplex),
        (RawSession, Duplex),
        (EventStream, Session),
        (WaitingPoll, Session),
        (WebSocketCarrier, Carrier),
        (EventStreamCarrier, Carrier),
    ],
)
def test_each_has_the_whole_contract(kind: type, contract: type) -> None:
    """No call of the order is missing."""
    assert set() == {name for name in methods(contract) if not hasattr(kind, name)}


def test_the_list_carrier_has_the_whole_contract() -> None:
    """A session that is tested with it meets the same calls."""
    carrier = ListCarrier()
    assert set() == {name for name in methods(Carrier) if not hasattr(carrier, name)}
    assert inspect.signature(ListCarrier.close).parameters.keys() == inspect.signature(Carrier.close).parameters.keys()


def test_without_rules_everything_is_allowed() -> None:
    """The default asks nobody."""
    assert ALLOW_ALL is TransportSettings().access
