"""One process of the benchmark of brokers, run inside this one: a node and a bare client, on each kind of server."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.base import BenchError
from benchmarks.broker_node import Node
from benchmarks.broker_peers import NodePeer, isolated
from oncecast.errors import Refusal
from tests.brokers.servers import Servers

KINDS = ("redis", "nats", "rabbitmq", "kafka")


@pytest.mark.parametrize("floor", [False, True], ids=["node", "floor"])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_measures(kind: str, floor: bool, servers: Servers) -> None:
    """What one publishes, the other receives and counts, and the log is deleted."""
    url = isolated(servers(kind).url.partition("?")[0])
    publisher, listener = Node(floor), Node(floor)
    for node in (publisher, listener):
        await node.do_open(url)
    assert 0 < float(str((await listener.do_want("w", "3"))["seconds"]))
    await listener.do_want("more", "1200")
    await listener.do_reset()
    assert {"seconds", "cpu"} == set(await publisher.do_one("w0", "3"))
    await publisher.do_many("w0", "200")
    await publisher.do_stamps("w0", "2")
    heard = await listener.do_await("205")
    micros = heard["micros"]
    assert isinstance(micros, list)
    assert 2 == len(micros)
    assert all(0 < each < 10_000_000 for each in micros)
    assert 0 < float(str((await listener.do_cpu())["cpu"]))
    for node in (publisher, listener):
        await node.do_close()
    await publisher.do_remove(url)


async def test_a_file(tmp_path: Path) -> None:
    """It delivers every channel, so none has to be wanted; its folder is deleted."""
    url = isolated(f"sqlite:///{tmp_path}/log.db")
    node = Node(True)  # a file has no floor: it is a node
    await node.do_open(url)
    await node.do_want("w", "1")
    await node.do_reset()
    await node.do_one("w0", "2")
    await node.do_await("2")
    await node.do_close()
    await node.do_remove(url)
    assert [] == os.listdir(tmp_path)


async def test_a_refused_publish_is_a_fault() -> None:
    """No figure is given for messages that are not in the log."""
    peer = NodePeer()

    class Refusing:
        def publish(self, drafts: list[Any], done: Any) -> None:
            done([Refusal("unavailable", "Not now.")])

    peer._broker = Refusing()  # type: ignore[assignment]
    with pytest.raises(BenchError, match="a publish was refused: Not now"):
        await peer.publish("a", (b"1",))


FAULTS: tuple[Callable[[NodePeer], None], ...] = (
    lambda peer: peer.skip(1),
    lambda peer: peer.hole(1, 2),
    lambda peer: peer.away("gone"),
    lambda peer: peer.fail("lost"),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_fault_is_kept(fault: Callable[[NodePeer], None]) -> None:
    """Each fault of the broker makes the figures void."""
    peer = NodePeer()
    peer.back()
    assert "" == peer.failed
    fault(peer)
    first = str(peer.failed)
    peer.fail("another")
    assert ("another" not in first, first) == (True, peer.failed)


async def test_commands_by_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each line is answered in JSON; what fails is an answer too, and so is a fault of the broker."""
    read, write = os.pipe()
    url = isolated(f"sqlite:///{tmp_path}/log.db")
    os.write(write, f"reset\nopen what://\nopen {url}\nreset\nclose\n".encode())
    os.close(write)
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        await Node(False).run()
    assert isinstance(out.buffer, io.BytesIO)
    answers = [msgspec.json.decode(line) for line in out.buffer.getvalue().splitlines()]
    assert [{}, {}, {}, {}] == [answers[0], *answers[2:]]
    assert answers[1]["error"].startswith("open: there is no benchmark for what://")


async def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and named."""
    monkeypatch.setattr("benchmarks.broker_node.COMMAND_SECONDS", 0.01)
    assert {"error": "await took longer than 0.01 s"} == await Node(False).answer("await 1")
