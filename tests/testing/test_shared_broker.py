"""The shared broker: every node is given the same, early or late."""

from __future__ import annotations

from oncecast.brokers.base import Outcome
from oncecast.message import Draft, Message, Receipt
from oncecast.testing.shared_broker import SharedBroker


def test_nodes_follow_one_log() -> None:
    """What any node publishes reaches all that are open, in order; a late one gets what was before."""
    shared = SharedBroker("e", lambda: 1.0)
    seen: list[list[Message]] = [[], [], []]
    outcomes: list[Outcome] = []
    nodes = [shared.node() for _ in range(3)]
    assert {("e", "memory")} == {(node.epoch, node.durability) for node in nodes}
    nodes[0].open(seen[0].extend)
    nodes[1].open(seen[1].extend)
    nodes[0].publish([Draft("a", b"1", key="k")], outcomes.extend)
    nodes[1].publish([Draft("a", b"1", key="k"), Draft("b", b"2")], outcomes.extend)
    nodes[2].open(seen[2].extend)
    nodes[0].close()
    nodes[0].close()
    nodes[1].publish([Draft("a", b"3")], outcomes.extend)
    assert [1, 1, 2, 3] == [outcome.seq for outcome in outcomes if isinstance(outcome, Receipt)]
    assert [1, 2, 3] == [message.seq for message in seen[1]]
    assert [1, 2] == [message.seq for message in seen[0]]
    assert shared.history == seen[1] == seen[2]
