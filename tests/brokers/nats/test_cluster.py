"""A cluster of three NATS servers: the log goes on where the leader of its stream is killed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from oncecast.message import Draft, Kind, Page, Receipt
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.driver import LoopDriver
from tests.brokers.nats.site import Cluster, ask
from tests.brokers.nats.test_settings import stream_of
from tests.brokers.servers import Servers
from tests.brokers.starting import bench_at, refusal_at

_numbers = itertools.count()


def has(node: BrokerBench, count: int) -> bool:
    """Return whether a node has as many messages."""
    return len(node.messages) >= count


def history(node: BrokerBench) -> list[tuple[int, bytes]]:
    """Return all that a page has, once the node has a server again."""
    end = time.monotonic() + 30
    while not isinstance(page := node.ask("a", node.after(0)), Page):
        assert time.monotonic() < end, page
        node.lab.driver.run(asyncio.sleep(0.1))
    return [(message.seq, message.data) for message in page.messages]


@pytest.fixture(scope="module", params=["nats", "nats-newest"])
def cluster(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Cluster]:
    """Three servers of a version."""
    with ExitStack() as stack:
        yield Cluster(servers, stack, request.param)


def test_one_replica_is_refused_in_a_cluster(cluster: Cluster) -> None:
    """A stream on one server of several is named: its server's restart could not be seen by the nodes."""
    asyncio.run(ask(cluster.members[0].port, "STREAM.CREATE.alone", stream_of("alone")))
    assert "has one replica in a cluster" in refusal_at(f"{cluster.url}?stream=alone")


def test_the_leader_is_killed(cluster: Cluster) -> None:
    """Two nodes on other servers number alike before and after; what was acknowledged is delivered, once, in order."""
    driver = LoopDriver()
    stream = f"t{next(_numbers)}"

    ports = [member.port for member in cluster.members]
    publishing, listening = (
        bench_at(f"{cluster.url}?stream={stream}", driver),
        bench_at(f"{cluster.url}?stream={stream}", driver),
    )
    acknowledged: dict[bytes, Receipt] = {}

    def publish(count: int) -> None:
        left = count
        while left:
            data = b"%d" % next(_numbers)
            while True:
                (outcome,) = publishing.publish(Draft("a", data, Kind.JSON, None, f"key-{data.decode()}"))
                if isinstance(outcome, Receipt):
                    break
                driver.run(asyncio.sleep(0.05))
            acknowledged[data] = outcome
            left -= 1

    try:
        for node in (publishing, listening):
            node.start()
            node.want("a")
        publish(30)
        info: dict[str, Any] = asyncio.run(ask(ports[0], f"STREAM.INFO.{stream}"))
        assert info["config"]["num_replicas"] == 3
        leader = cluster.named(info["cluster"]["leader"])
        leader.kill()
        publish(30)
        leader.start()
        publish(30)
        wanted = [(receipt.seq, data) for data, receipt in acknowledged.items()]
        for node in (publishing, listening):
            node.wait(partial(has, node, len(wanted)))
            assert [(message.seq, message.data) for message in node.messages] == wanted
            assert (len(node.openings), node.skipped, node.holes) == (1, [], [])
            assert history(node) == wanted
    finally:
        publishing.stop()
        listening.stop()
        driver.close()
