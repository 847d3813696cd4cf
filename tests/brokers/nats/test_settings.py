"""NATS with other settings than the log needs: one line at the start that says what to do, and `/readyz` later on."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.message import Draft, Receipt, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.driver import LoopDriver
from tests.brokers.nats.site import ask, configured
from tests.brokers.servers import Servers
from tests.brokers.starting import bench_at, publish_once, refusal_at, until_ready

KINDS = ("nats", "nats-newest")
ACCOUNT = "accounts {{ shop {{ jetstream: {limits}, users: [ {{ user: ann, password: p }} ] }} }}\nno_auth_user: ann\n"
LIMITED = "{{ max_mem: 1M, max_file: {bytes}, max_streams: {streams}, max_consumers: 100 }}"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test has started; it is ended with the test."""
    with ExitStack() as made:
        yield made


def stream_of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a stream that fits, with changes."""
    return {
        "name": name,
        "subjects": [f"{name}.m.>", f"{name}.t.>", f"{name}.life", f"{name}.lease"],
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "discard": "new",
        "duplicate_window": 120_000_000_000,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "republish": {"src": f"{name}.m.>", "dest": f"{name}.r.>"},
        **changes,
    }


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "subjects": ({"subjects": ["subjects.m.>"]}, "lacks the subjects subjects.lease, subjects.life"),
    "republish": ({"republish": {"src": "republish.m.>", "dest": "elsewhere.>"}}, "another republish"),
    "headers": (
        {"republish": {"src": "headers.m.>", "dest": "headers.r.>", "headers_only": True}},
        "another republish",
    ),
    "retention": ({"retention": "interest"}, "retention=interest, not limits"),
    "storage": ({"storage": "memory"}, "storage=memory, not file"),
    "direct": ({"allow_direct": False}, "allow_direct off: set it"),
    "rollup": ({"allow_rollup_hdrs": False}, "allow_rollup_hdrs off: set it"),
    "purge": ({"deny_purge": True, "allow_rollup_hdrs": False}, "allow_rollup_hdrs off"),
    "age": ({"max_age": 60_000_000_000, "duplicate_window": 60_000_000_000}, "set max_age to 0"),
    "subject": ({"max_msgs_per_subject": 10}, "max_msgs_per_subject=10: set it to -1"),
    "consumers": ({"max_consumers": 1}, "max_consumers=1: set it to -1"),
    "bytes": ({"max_bytes": 1 << 20, "discard": "old"}, "max_bytes with discard=old"),
    "messages": ({"max_msgs": 100, "discard": "old"}, "max_msgs with discard=old"),
    "window": ({"duplicate_window": 1_000_000_000}, "knows a key for 1 s"),
    "acks": ({"no_ack": True}, "has no_ack"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MISFITS)
def test_a_stream_with_other_settings(servers: Servers, kind: str, name: str) -> None:
    """A stream that somebody else has made, and that can't be the log, is named with what to change."""
    changes, said = MISFITS[name]
    server = servers(kind)
    asyncio.run(ask(server.port, f"STREAM.CREATE.{name}", stream_of(name, **changes)))
    line = refusal_at(f"{server.url}?stream={name}")
    assert said in line
    assert f"the stream {name} " in line
    assert "another stream by ?stream=NAME" in line


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_bytes": 1 << 20, "discard": "new"},
        {"duplicate_window": 600_000_000_000},
    ],
    ids=["same", "full", "window"],
)
def test_a_stream_that_fits(servers: Servers, stack: ExitStack, changes: dict[str, Any]) -> None:
    """A limit that refuses messages, and does not remove any, is accepted, and so is a longer window."""
    server = servers.own("nats", stack)
    asyncio.run(ask(server.port, "STREAM.CREATE.fits", stream_of("fits", **changes)))
    assert publish_once(f"{server.url}?stream=fits") == b"1"


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_without_a_cluster(servers: Servers, kind: str) -> None:
    """More replicas than the server can have are its own error, in one line; and fewer than asked for are named."""
    url = servers(kind).url
    said = refusal_at(f"{url}?stream=r1&replicas=3")
    assert "the stream r1 can't be made: replicas > 1 not supported" in said
    assert said.endswith("leave ?replicas= out, or let the server be one of a cluster")
    assert publish_once(f"{url}?stream=r2") == b"1"
    assert "has num_replicas=1: set it to 3" in refusal_at(f"{url}?stream=r2&replicas=3")


@pytest.mark.parametrize("kind", KINDS)
def test_jetstream_is_off(servers: Servers, stack: ExitStack, kind: str) -> None:
    """For the server, or for the account: the line says what to switch on."""
    off = configured(servers, stack, "", kind=kind, jetstream=False)
    assert "JetStream is off: start nats-server with -js" in refusal_at(off.url)
    other = configured(servers, stack, ACCOUNT.format(limits="disabled"), kind=kind)
    assert "set jetstream: enabled in the account" in refusal_at(other.url)


def test_no_nats_at_all(servers: Servers) -> None:
    """A closed port, an unknown host and a server of another kind are an error of one line each, at once."""
    begun = time.monotonic()
    assert "127.0.0.1:9: " in refusal_at("nats://127.0.0.1:9")
    assert "127.0.0.1:9: nothing listens there: start the server" in refusal_at("nats://127.0.0.1:9")
    assert "nowhere.invalid:4222" in refusal_at("nats://nowhere.invalid")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "it did not answer within 3 s: check that NATS listens at this port" in refusal_at(
            f"nats://127.0.0.1:{silent.getsockname()[1]}"
        )
    assert time.monotonic() - begun < 30


def test_several_servers_of_which_one_lives(servers: Servers) -> None:
    """The order does not matter, and a dead one costs nothing."""
    port = servers("nats").port
    for _ in range(5):
        assert publish_once(f"nats://127.0.0.1:9,127.0.0.1:{port},127.0.0.1:10?stream=several") == b"1"
    line = refusal_at("nats://127.0.0.1:9,127.0.0.1:10")
    assert "127.0.0.1:9: " in line
    assert "127.0.0.1:10: " in line


def test_a_small_max_payload(servers: Servers, stack: ExitStack) -> None:
    """A message that is too large is refused with what to raise. The others of its batch are published."""
    server = configured(servers, stack, "max_payload: 20000\n")
    asyncio.run(ask(server.port, "STREAM.CREATE.small", stream_of("small", max_msg_size=5_000)))
    for stream, most in (("large", 20_000), ("small", 5_000)):
        driver = LoopDriver()
        bench = bench_at(f"{server.url}?stream={stream}", driver)
        bench.start()
        refused, taken = bench.publish(Draft("a", bytes(most)), Draft("a", bytes(most - 400)))
        bench.stop()
        driver.close()
        assert isinstance(refused, Refusal)
        assert refused.code == "body_too_large"
        assert re.search(rf"at most {most} bytes.*max_payload", refused.message)
        assert isinstance(taken, Receipt)


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_without_a_stream_left(servers: Servers, stack: ExitStack, kind: str) -> None:
    """The error names the limit that the account has reached."""
    limits = LIMITED.format(bytes="10M", streams=1)
    server = configured(servers, stack, ACCOUNT.format(limits=limits), kind=kind)
    assert publish_once(f"{server.url}?stream=first") == b"1"
    assert "the stream second can't be made: maximum number of streams reached" in refusal_at(
        f"{server.url}?stream=second"
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_an_account_that_is_full(servers: Servers, stack: ExitStack, kind: str) -> None:
    """Publishes are refused, `/readyz` says what to raise, and once there is room the node is ready by itself."""
    limits = LIMITED.format(bytes="200K", streams=5)
    server = configured(servers, stack, ACCOUNT.format(limits=limits), kind=kind)
    settings = Settings(broker=server.url, port=0)
    broker = build_broker(settings, lambda channel: Retention())
    node = Server(settings, broker=broker)
    await node.start()
    try:
        await until_ready(node, lambda status, text: status == 200)
        outcomes: list[Any] = []
        for size in (40_000, 4_000, 400, 40, 1):  # until not even a probe has room
            while not outcomes or isinstance(outcomes[-1], Receipt):
                answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                broker.publish([Draft("a", bytes(size))], answered.set_result)
                outcomes += await answered
            last = outcomes.pop()
        outcomes.append(last)
        refused = outcomes[-1]
        assert isinstance(refused, Refusal)
        assert refused.code == "unavailable"
        status, text = await until_ready(node, lambda status, text: "takes nothing" in text)
        assert status == 503
        assert "raise the limit" in text
        for _ in range(20):  # it is not ready in between
            status, text = await until_ready(node, lambda status, text: True)
            assert status == 503
            await asyncio.sleep(0.05)
        if kind == "nats":
            return  # 2.9 goes on refusing after a purge
        await ask(server.port, "STREAM.PURGE.oncecast", {"filter": "oncecast.m.a"})
        await until_ready(node, lambda status, text: status == 200)
    finally:
        await node.stop()
