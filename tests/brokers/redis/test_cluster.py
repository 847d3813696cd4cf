"""A Redis Cluster: the log stands in one slot, on whichever node has it."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.message import Draft
from scripts.broker_servers.system import asks
from tests.brokers.redis.sites import ClusterNode, Sites, client, works

SLOTS = 16_384


def nodes_of(sites: Sites, count: int) -> list[tuple[ClusterNode, Any]]:
    """Return the nodes of a Cluster, each with a connection; the first one has all slots."""
    made = []
    for _ in range(count):
        node = sites.make(ClusterNode)
        node.start()
        made.append((node, client(node.port)))
    first, at_first = made[0]
    at_first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    for _, at in made[1:]:
        at.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.ports[1])
    sites.wait(lambda: all(b"cluster_state:ok" in _info(node) for node, _ in made), "the Cluster is whole")
    known = f"cluster_known_nodes:{count}".encode()
    sites.wait(lambda: all(known in _info(node) for node, _ in made), "each node knows the others")
    return made


def _info(node: ClusterNode) -> bytes:
    return asks(node.port, b"CLUSTER INFO\r\n")


def move_slot(source: tuple[ClusterNode, Any], target: tuple[ClusterNode, Any], slot: int) -> None:
    """Move a slot with its keys, as an operator's tool does."""
    (_, at_source), (node, at_target) = source, target
    names = [str(at.execute_command("CLUSTER", "MYID").decode()) for at in (at_source, at_target)]
    at_target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
    at_source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
    while keys := at_source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
        at_source.execute_command("MIGRATE", "127.0.0.1", node.port, "", 0, 60_000, "KEYS", *keys)
    for at in (at_target, at_source):
        at.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])


@pytest.mark.parametrize("prefix", ["", "shop"])
def test_a_cluster_of_one_node(sites: Sites, prefix: str) -> None:
    """All keys of a log are in one slot, so every script may use all of them."""
    ((node, at),) = nodes_of(sites, 1)
    url = f"redis://127.0.0.1:{node.port}?prefix={prefix}"
    one, two = sites.started(url, "a", "b"), sites.started(url, "a")
    receipts = one.receipts(Draft("a", b"1", key="k"), Draft("b", b"2"), Draft("a", b"1", key="k"))
    assert receipts[0].seq == receipts[2].seq
    sites.wait(lambda: len(two.messages) == 1, "the other node has it")
    page = two.page("ab", two.after(0))
    assert page is not None
    assert [message.data for message in page.messages] == [b"1", b"2"]
    slots = {at.execute_command("CLUSTER", "KEYSLOT", key) for key in at.execute_command("KEYS", "*")}
    assert len(slots) == 1


def test_the_slot_is_on_another_node_and_moves(sites: Sites) -> None:
    """The node of the URL names the one that has the slot. When the slot moves, a node follows it, with its history."""
    first, second = nodes_of(sites, 2)
    slot = first[1].execute_command("CLUSTER", "KEYSLOT", "{oncecast}:h")
    url = f"redis://127.0.0.1:{second[0].port}"
    one, two = sites.started(url, "a"), sites.started(url, "a")
    before = works(one)
    sites.wait(lambda: two.seqs() == [before.seq], "the other node has it")
    move_slot(first, second, slot)
    for node in (one, two):
        sites.until_away(node)
    for node in (one, two):
        sites.until_back(node)
        assert node.holes
    after = works(one)
    sites.wait(lambda: two.seqs() == [before.seq, after.seq], "the other node goes on")
    page = two.page("a", two.after(0))
    assert page is not None
    assert [message.seq for message in page.messages] == [before.seq, after.seq]
    assert second[1].execute_command("EXISTS", "{oncecast}:s:a") == 1
