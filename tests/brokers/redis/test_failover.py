"""Sentinel: the primary dies, a replica takes its place, and no acknowledged message is missing in silence."""

from __future__ import annotations

import pytest

from oncecast.message import Draft
from oncecast.testing.broker_bench import BrokerBench
from scripts.broker_servers.kinds import KINDS
from tests.brokers.redis.sites import Sentinel, Sites, client


class Watched:
    """A primary, its replica, and sentinels that watch them; two nodes that know the sentinels alone."""

    def __init__(self, sites: Sites, kind: str, sentinels: int) -> None:
        self.sites = sites
        self.primary = sites.server(kind)
        self.replica = sites.server(kind, replica_of=self.primary.port)
        self.sentinels = []
        for _ in range(sentinels):
            sentinel = sites.make(Sentinel)
            sentinel.program = KINDS[kind].require()
            sentinel.primary, sentinel.quorum = self.primary.port, sentinels // 2 + 1
            sentinel.start()
            self.sentinels.append(sentinel)
        sites.wait(self._whole, "the sentinels know each other and the replica")
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/mymaster/0"
        self.one, self.two = sites.started(self.url, "a"), sites.started(self.url, "a")

    def _whole(self) -> bool:
        link = client(self.replica.port).info("replication")["master_link_status"]
        states = [client(sentinel.port).info("sentinel")["master0"] for sentinel in self.sentinels]
        expected = (1, len(self.sentinels))
        return link == "up" and all((state["slaves"], state["sentinels"]) == expected for state in states)

    def fail_over(self) -> None:
        """Kill the primary, and one of three sentinels; wait until both nodes are on the replica."""
        if len(self.sentinels) > 1:
            self.sentinels[0].kill()
        self.primary.kill()
        for node in (self.one, self.two):
            self.sites.until_away(node)
        for node in (self.one, self.two):
            self.sites.until_back(node)
        assert client(self.replica.port).info("replication")["role"] == "master"


def data(node: BrokerBench) -> list[bytes]:
    """Return what a node was handed."""
    return [message.data for message in node.messages]


@pytest.mark.parametrize("kind, sentinels", [("redis", 3), ("valkey", 1)])
def test_a_failover_that_loses_nothing(sites: Sites, kind: str, sentinels: int) -> None:
    """Both nodes go on with the replica; keys and cursors from before are valid, and the hole says what may be lost."""
    watched = Watched(sites, kind, sentinels)
    one, two = watched.one, watched.two
    (first,) = one.receipts(Draft("a", b"1", key="k"))
    assert client(watched.primary.port).wait(1, 30_000) == 1
    watched.fail_over()
    (again,) = two.receipts(Draft("a", b"1", key="k"))
    assert again == first
    (last,) = two.receipts(Draft("a", b"2"))
    assert last.seq > first.seq
    sites.wait(lambda: data(one) == [b"1", b"2"], "the first node goes on")
    sites.wait(lambda: data(two) == [b"1", b"2"], "the second node goes on")
    for node in (one, two):
        assert node.holes
        assert all(first.seq <= before < after <= last.seq for before, after in node.holes)
    fresh = sites.started(watched.url, "a")
    page = fresh.page("a", fresh.after(0))
    assert page is not None
    assert [message.data for message in page.messages] == [b"1", b"2"]


def test_a_replica_that_lacks_what_was_acknowledged(sites: Sites) -> None:
    """What it lacks lies in a hole at each node, also at one that had delivered it, and no number is given again."""
    watched = Watched(sites, "redis", 1)
    one, two = watched.one, watched.two
    kept = one.receipts(Draft("a", b"kept"))[0]
    assert client(watched.primary.port).wait(1, 30_000) == 1
    client(watched.replica.port).execute_command("REPLICAOF", "NO", "ONE")  # it gets nothing more
    lacking = one.receipts(Draft("a", b"lost 1"), Draft("a", b"lost 2", key="k"))
    watched.fail_over()
    (last,) = two.receipts(Draft("a", b"new", key="k"))  # its key is lost too
    sites.wait(lambda: data(one)[-1:] == data(two)[-1:] == [b"new"], "both nodes go on")
    for node in (one, two):
        for receipt in lacking:
            assert any(before < receipt.seq < after for before, after in node.holes)
        assert [seq for seq in node.seqs() if seq == last.seq] == [last.seq]
    assert last.seq > lacking[-1].seq
    fresh = sites.started(watched.url, "a")
    page = fresh.page("a", fresh.after(kept.seq))
    assert page is not None
    assert [message.data for message in page.messages] == [b"new"]
    assert any(before <= kept.seq and lacking[-1].seq < after for before, after in fresh.opening.holes)
