"""What goes wrong with a server while nodes run: they say so on `/readyz`, refuse what can't be kept, and heal."""

from __future__ import annotations

import logging

import pytest

from oncecast.brokers.redis import opening, trims
from oncecast.brokers.redis.broker import redis_broker
from oncecast.errors import ConfigurationError, Refusal
from oncecast.message import Draft, Retention
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.broker_bench import BrokerBench, Lab
from scripts.broker_servers.kinds import Redis
from tests.brokers.redis.sites import Sites, client, works
from tests.brokers.starting import refusal_at, until_ready


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are checked often."""
    monkeypatch.setattr(opening, "CHECK_SECONDS", 0.05)


def url_of(server: Redis) -> str:
    """Return the URL of a server as a test uses it."""
    return f"redis://127.0.0.1:{server.port}"


def refused(node: BrokerBench, channel: str = "a", data: bytes = b"x") -> str:
    """Publish a message, which is refused; return what is said."""
    (outcome,) = node.publish(Draft(channel, data))
    assert isinstance(outcome, Refusal)
    assert (outcome.code, outcome.retry_after) == ("unavailable", 5)
    return outcome.message


def test_readyz_says_why(sites: Sites, quick: None) -> None:
    """A node on a server that an operator makes evict keys is not ready, and says what to do, until that is mended."""
    server = sites.server()
    at = client(server.port)

    async def serve() -> tuple[int, str]:
        node = Server(Settings(port=0, broker=url_of(server)))
        await node.start()
        try:
            at.config_set("maxmemory-policy", "allkeys-lru")
            at.config_set("maxmemory", "100mb")
            said = await until_ready(node, lambda status, text: status == 503)
            at.config_set("maxmemory", "0")
            await until_ready(node, lambda status, text: status == 200)
        finally:
            await node.stop(0)
        return said

    _, said = sites.driver.run(serve())
    assert "it evicts keys (allkeys-lru), which would lose messages: set maxmemory-policy noeviction" in said
    assert said.count("redis://") == 1


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_memory_that_is_full(sites: Sites, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Publishes are refused and say what to do, listeners stay and history is read; with room again, all goes on."""
    server = sites.server(kind)
    node, other = sites.started(url_of(server), "a", "b"), sites.started(url_of(server), "a")
    first = works(node)
    at = client(server.port)
    at.set("of something else", bytes(20 << 20))
    at.config_set("maxmemory", "10mb")
    assert "its memory is full: raise its maxmemory" in refused(node)
    assert "its memory is full: raise its maxmemory" in refused(node)
    page = node.page("a", node.after(0))
    assert page is not None
    assert [message.seq for message in page.messages] == [first.seq]
    for _ in range(20):
        refused(node)
    assert (node.unready, other.unready, node.holes) == (None, None, [])
    lines = [record for record in caplog.records if "its memory is full" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.ERROR]
    at.config_set("maxmemory", "0")
    again = works(node)
    assert again.seq == first.seq + 1
    sites.wait(lambda: other.seqs() == [first.seq, again.seq], "the other node has both")
    assert "takes messages again" in caplog.text


def test_replicas_that_are_needed_and_missing(sites: Sites) -> None:
    """With `min-replicas-to-write`, a primary whose replicas are gone refuses writes: so does the node."""
    server = sites.server()
    node = sites.started(url_of(server), "a")
    works(node)
    client(server.port).config_set("min-replicas-to-write", 1)
    assert "NOREPLICAS" in refused(node)
    assert node.unready is None
    client(server.port).config_set("min-replicas-to-write", 0)
    works(node)


def test_what_only_an_operator_mends_is_refused(sites: Sites) -> None:
    """A key of another type and a missing permission are refused, and the session goes on."""
    server = sites.server()
    at = client(server.port)
    node = sites.started(url_of(server), "a", "b")
    at.set("{oncecast}:s:b", "foreign")
    first = works(node)
    outcomes = node.publish(Draft("a", b"before"), Draft("b", b"foreign"), Draft("a", b"behind"))
    assert [getattr(outcome, "message", "")[-51:] for outcome in outcomes] == [
        "holds something else: name another one with ?prefix=NAME"[-51:]
    ] * 3
    later = works(node)
    assert later.seq > first.seq + 1  # the message before the fault was stored, and has its number
    assert node.seqs("a") == [first.seq, first.seq + 1, later.seq]
    at.execute_command("ACL", "SETUSER", "default", "-xadd")
    assert "give its user" in refused(node)
    assert node.unready is None
    at.execute_command("ACL", "SETUSER", "default", "+xadd")
    works(node)


def test_a_primary_that_is_made_a_replica(sites: Sites) -> None:
    """By hand, and its connections stay open: the node is not ready, says why, and is back when that is undone."""
    server, other = sites.server(), sites.server()
    node = sites.started(url_of(server), "a")
    works(node)
    client(server.port).execute_command("REPLICAOF", "127.0.0.1", other.port)
    node.send(Draft("a", b"x"))
    sites.until_away(node)
    sites.wait(lambda: "is a replica: name the primary" in str(node.unready), "it says why")
    client(server.port).execute_command("REPLICAOF", "NO", "ONE")
    sites.until_back(node)
    works(node)


def test_a_primary_and_its_replica_that_are_swapped(sites: Sites, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, while nobody publishes: the nodes leave the old one, which keeps their connections, for the new one."""
    monkeypatch.setattr(trims, "SWEEP_SECONDS", 1_000.0)  # trimming would notice it too, later
    old = sites.server()
    new = sites.server(replica_of=old.port)
    url = f"redis://127.0.0.1:{old.port},127.0.0.1:{new.port}"
    one, two = sites.started(url, "a"), sites.started(url, "a")
    first = works(one)
    assert client(old.port).wait(1, 30_000) == 1
    client(new.port).execute_command("REPLICAOF", "NO", "ONE")
    client(old.port).execute_command("REPLICAOF", "127.0.0.1", new.port)
    sites.wait(lambda: bool(one.holes and two.holes), "both nodes have found the new one")
    for node in (one, two):
        sites.until_back(node)
    last = works(one)
    sites.wait(lambda: two.seqs() == [first.seq, last.seq], "the other node goes on")
    assert one.seqs() == [first.seq, last.seq]


def test_a_page_is_of_the_life_that_the_node_knows(sites: Sites) -> None:
    """A server that another one's log was copied to has messages behind a hole: no page leads past it."""
    server = sites.server()
    node = sites.started(url_of(server), "a")
    first = works(node)
    other = first.seq + 1_000
    with client(server.port).pipeline() as at:
        at.xadd("{oncecast}:s:a", {"d": b"x", "k": 1, "e": "", "t": 1_000}, id=f"{other}-0")
        at.hset("{oncecast}:h", mapping={"life": "0" * 40, "seq": other})
        at.execute()
    assert isinstance(node.ask("a", node.after(first.seq)), Refusal)
    sites.wait(lambda: bool(node.holes), "the node knows of the hole")
    sites.until_back(node)


def test_a_password_that_is_changed(sites: Sites, caplog: pytest.LogCaptureFixture) -> None:
    """A node that has lost its connection is refused, says so, and shows no password; the old one heals it."""
    server = sites.server("redis", "--requirepass", "first-word")
    node = sites.started(f"redis://:first-word@127.0.0.1:{server.port}", "a")
    at = client(server.port, "first-word")
    at.ping()
    at.config_set("requirepass", "second-word")
    at.execute_command("CLIENT", "KILL", "SKIPME", "yes")
    sites.wait(lambda: "check its user and password" in str(node.unready), "it says why")
    assert str(node.unready).count("redis://") == 1
    at.config_set("requirepass", "first-word")
    sites.until_back(node)
    works(node)
    assert "first-word" not in caplog.text


def test_a_server_that_loads_its_data(sites: Sites) -> None:
    """A start says that it does; a node that was there waits, and goes on behind the hole of the restart."""
    server = sites.server("redis", "--enable-debug-command", "yes")
    node = sites.started(url_of(server), "a")
    first = works(node)
    at = client(server.port)
    at.execute_command("DEBUG", "POPULATE", 20_000)
    at.execute_command("BGREWRITEAOF")
    sites.wait(lambda: at.info("persistence")["aof_rewrite_in_progress"] == 0, "its data is written")
    server.kill()
    sites.until_away(node)
    server.options = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    server.ready = lambda: True  # type: ignore[method-assign] # it is not, while it loads
    server.start()
    sites.wait(lambda: "it is loading its data: wait until it has" in str(node.unready), "the node says it")
    assert "it is loading its data: wait until it has" in refusal_at(url_of(server))
    client(server.port).config_set("key-load-delay", 0)
    sites.until_back(node)
    again = works(node)
    assert [first.seq < before + 1 <= after <= again.seq for before, after in node.holes] == [True]


def test_an_old_version(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """What INFO says of the version counts: before 6.2 the start fails, and names what is needed."""
    server = sites.server()
    monkeypatch.setattr(opening, "_field", lambda info, name: b"6.0.16" if name == b"redis_version" else b"")
    assert refusal_at(url_of(server)) == f"broker: {url_of(server)}: Redis 6.0.16 is too old: 6.2 is needed"


def test_a_connection_that_is_killed(sites: Sites) -> None:
    """A new session is opened in each of the three cases, and no message is missing."""
    server = sites.server()
    node, other = sites.started(url_of(server), "a"), sites.started(url_of(server), "a")
    at = client(server.port)
    sent: list[int] = []
    for kind in ("pubsub", "normal"):
        at.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        sites.until_away(node)
        sites.until_away(other)
        sites.until_back(other)
        sent += [receipt.seq for receipt in other.receipts(Draft("a", b"1"), Draft("a", b"2"))]
        sites.until_back(node)
        sites.wait(lambda: node.seqs()[-1:] == other.seqs()[-1:], "what was published meanwhile is handed over")
        assert node.seqs() == sent
    assert (other.seqs(), node.holes) == (sent, [])


def test_the_log_is_not_there_for_a_command(sites: Sites) -> None:
    """Where no log may begin, a server without one is a mistake."""

    def none() -> str:
        raise ConfigurationError("there is no log")

    server = sites.server()
    broker = redis_broker(url_of(server), new_epoch=none, policy=lambda channel: Retention())
    with pytest.raises(ConfigurationError, match="there is no log"):
        BrokerBench(broker, Lab(lambda: broker, sites.driver)).start()
    assert client(server.port).keys("*") == []
