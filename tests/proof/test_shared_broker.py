"""The shared broker: every node is given the same, early or late."""

from __future__ import annotations

from oncecast.brokers.base import Outcome
from oncecast.message import Draft, Receipt
from oncecast.testing.broker import BrokerBench, Lab

from .shared_broker import SharedBroker


def test_nodes_follow_one_log() -> None:
    """What any node publishes reaches all that are open, in order; a late one gets what was before."""
    shared = SharedBroker("e", lambda: 1.0)
    outcomes: list[Outcome] = []
    nodes = [shared.node() for _ in range(3)]
    sinks = [BrokerBench(node, Lab(shared.node)) for node in nodes]
    sinks[0].start()
    sinks[1].start()
    nodes[0].publish([Draft("a", b"1", key="k")], outcomes.extend)
    nodes[1].publish([Draft("a", b"1", key="k"), Draft("b", b"2")], outcomes.extend)
    sinks[2].start()
    opening = sinks[2].opening
    sinks[0].stop()
    sinks[0].stop()
    nodes[1].publish([Draft("a", b"3")], outcomes.extend)
    assert [1, 1, 2, 3] == [outcome.seq for outcome in outcomes if isinstance(outcome, Receipt)]
    assert [1, 2, 3] == [message.seq for message in sinks[1].messages]
    assert [1, 2] == [message.seq for message in sinks[0].messages]
    assert shared.messages == sinks[1].messages == [*opening.recent, *sinks[2].messages]
    assert 2 == opening.head
