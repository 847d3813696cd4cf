"""Settings that can't work: one line that says what to do, and no secret in it, nor in the log."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncecast.message import Retention
from scripts.broker_servers.system import free_ports
from tests.brokers.redis.sites import ClusterNode, Sentinel, Sites, client, works
from tests.brokers.starting import refusal_at, serve

SECRET = "s3same-open"  # in no text
WRONG = "wr0ng-word"


class Places:
    """The servers that the URLs of this file lead to, by the names that stand in `MISTAKES`."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        plain = sites.server()
        sentinel = sites.make(Sentinel)
        sentinel.primary = plain.port
        sentinel.start()
        locked = sites.make(Sentinel, "--requirepass", SECRET)
        locked.primary = plain.port
        locked.start()
        cluster = sites.make(ClusterNode)
        cluster.start()
        self.ports = {
            "plain": plain.port,
            "closed": sites.server("redis", "--requirepass", SECRET).port,
            "replica": sites.server(replica_of=plain.port).port,
            "sentinel": sentinel.port,
            "locked": locked.port,
            "evicts": sites.server("redis", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru").port,
            "full": sites.server("redis", "--maxmemory", "1mb").port,
            "cluster": cluster.port,
            "users": sites.server().port,
            "foreign": sites.server().port,
            "few": sites.server("redis", "--maxclients", "1").port,
            "nothing": free_ports(1)[0],
        }
        users = client(self.ports["users"])
        users.execute_command("ACL", "SETUSER", "keys", "on", f">{SECRET}", "~other:*", "&*", "+@all")
        users.execute_command("ACL", "SETUSER", "pubsub", "on", f">{SECRET}", "~*", "resetchannels", "+@all")
        users.execute_command("ACL", "SETUSER", "commands", "on", f">{SECRET}", "~*", "&*", "+@read", "+@connection")
        client(self.ports["foreign"]).set("{oncecast}:h", "of somebody else")
        self.held = client(self.ports["few"])
        self.held.ping()


@pytest.fixture(scope="module")
def places(shared: Sites) -> Places:
    """The servers."""
    return Places(shared)


MISTAKES = {
    "nothing listens": ("redis://127.0.0.1:{nothing}", "refuses connections: start the server, or correct the URL"),
    "an unknown host": ("redis://no-such-host.invalid", "the host no-such-host.invalid can't be resolved"),
    "no password": ("redis://127.0.0.1:{closed}", "check its user and password"),
    "a wrong password": (f"redis://:{WRONG}@127.0.0.1:{{closed}}", "check its user and password"),
    "a wrong user": (f"redis://ann:{WRONG}@127.0.0.1:{{closed}}", "check its user and password"),
    "a password where none is": (f"redis://:{WRONG}@127.0.0.1:{{plain}}", "check its user and password"),
    "keys": (f"redis://keys:{SECRET}@127.0.0.1:{{users}}", "give its user the keys and pub/sub channels"),
    "pub/sub": (f"redis://pubsub:{SECRET}@127.0.0.1:{{users}}", "give its user the keys and pub/sub channels"),
    "commands": (f"redis://commands:{SECRET}@127.0.0.1:{{users}}", "and the commands of docs/how-to/redis.md"),
    "a database that is not there": ("redis://127.0.0.1:{plain}/99", "it has no database of this number"),
    "a replica": ("redis://127.0.0.1:{replica}", "is a replica: name the primary, or use redis+sentinel://"),
    "a sentinel": ("redis://127.0.0.1:{sentinel}", "it is a sentinel: use redis+sentinel://HOST/NAME"),
    "no sentinel": ("redis+sentinel://127.0.0.1:{plain}/mymaster", "is no sentinel: name Sentinel's port"),
    "a primary unknown to it": ("redis+sentinel://127.0.0.1:{sentinel}/other", "knows no primary called other"),
    "a sentinel's password": (
        f"redis+sentinel://127.0.0.1:{{locked}}/mymaster?sentinel_password={WRONG}",
        "check sentinel_password",
    ),
    "no password for a sentinel": ("redis+sentinel://127.0.0.1:{locked}/mymaster", "check sentinel_password"),
    "eviction": ("redis://127.0.0.1:{evicts}", "it evicts keys (volatile-lru), which would lose messages: set maxmem"),
    "full memory": ("redis://127.0.0.1:{full}", "its memory is full: raise its maxmemory"),
    "a cluster without slots": ("redis://127.0.0.1:{cluster}", "see redis-cli --cluster check"),
    "a foreign key": ("redis://127.0.0.1:{foreign}", "name another one with ?prefix=NAME"),
    "too many clients": ("redis://127.0.0.1:{few}", "it takes no more connections: raise its maxclients"),
    "TLS without TLS": ("rediss://127.0.0.1:{plain}", "check that it speaks TLS at this port"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_said_of_a_mistake(places: Places, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """At the start: one line, with what to do."""
    caplog.set_level(logging.DEBUG)
    url, words = MISTAKES[name]
    said = refusal_at(url.format(**places.ports))
    assert words in said
    assert not [secret for secret in (SECRET, WRONG) if secret in said + caplog.text]


def test_the_first_host_that_is_right_is_taken(places: Places) -> None:
    """Of several hosts; where none is, the reasons are said, each once."""
    ports = places.ports
    node = places.sites.started(f"redis://127.0.0.1:{ports['nothing']},127.0.0.1:{ports['plain']}?prefix=first", "a")
    works(node)
    nowhere = f"127.0.0.1:{ports['nothing']}"
    said = refusal_at(f"redis://{nowhere},127.0.0.1:{ports['replica']},{nowhere}")
    assert said.count("refuses connections") == 1
    assert "is a replica" in said


@pytest.mark.parametrize("how", ["URL", "variable", "file", "user", "sentinel"])
def test_a_password_that_is_right(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """From the URL, a variable or a file; of a user, who may do only what the how-to names. None of it is logged."""
    caplog.set_level(logging.DEBUG)
    at = f"127.0.0.1:{places.ports['closed']}"
    monkeypatch.setenv("REDIS_WORD", SECRET)
    (tmp_path / "word").write_text(f"{SECRET}\n")
    admin = client(places.ports["users"])
    how_to = (Path(__file__).parents[3] / "docs/how-to/redis.md").read_text()
    (rule,) = [line for line in how_to.splitlines() if line.startswith("ACL SETUSER oncecast ")]
    admin.execute_command(*rule.replace("PASSWORD", SECRET).split())
    url = {
        "URL": f"redis://:{SECRET}@{at}",
        "variable": f"redis://{at}?password_env=REDIS_WORD",
        "file": f"redis://{at}?password_file={tmp_path / 'word'}",
        "sentinel": (
            f"redis+sentinel://127.0.0.1:{places.ports['locked']}/mymaster?sentinel_password_file={tmp_path / 'word'}"
        ),
        "user": f"redis://oncecast:{SECRET}@127.0.0.1:{places.ports['users']}",
    }[how]
    node = places.sites.started(url, "a")
    works(node)
    page = node.page("a", node.after(0))
    assert page is not None
    assert [message.data for message in page.messages][-1] == b"works"
    inspect, channels, trim = (getattr(node.broker, name) for name in ("inspect", "channels", "trim"))
    places.sites.driver.run(inspect())
    assert "a" in [state.name for state in places.sites.driver.run(channels())]
    places.sites.driver.run(trim("a", Retention(1)))
    assert SECRET not in caplog.text + repr(node.broker) + str(node.unready)


def echo(answer: bytes) -> Iterator[int]:
    """Run something at a port that is no Redis: it answers everything with the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    talk, _ = server.accept()
                except OSError:
                    return
                with talk:
                    asked = talk.recv(1000)
                    talk.sendall(answer.replace(b"ASKED", asked.replace(b"\r\n", b" ")))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30)


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak Redis's protocol: correct the port"),
        (b"-ERR unknown command, with args beginning with: ASKED\r\n", "unknown command"),
        (b"-NOAUTH ASKED\r\n", "check its user and password"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it is loading its data: wait until it has"),
        (b"", "if it speaks TLS at this port, begin the URL with rediss://"),
    ],
)
def test_a_server_that_is_no_redis(answer: bytes, words: str) -> None:
    """A web server, one that repeats what it was asked, one that ends: the password is not said again."""
    for port in echo(answer):
        said = refusal_at(f"redis://ann:{SECRET}@127.0.0.1:{port}")
    assert words in said
    assert SECRET not in said


def test_a_server_that_is_silent() -> None:
    """It takes the connection and never answers: the start ends in time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = refusal_at(f"redis://127.0.0.1:{server.getsockname()[1]}")
    assert "did not answer within 1.5 s: check the address, and firewalls on the way" in said


@pytest.mark.parametrize("name", ["nothing listens", "a wrong password"])
def test_serve_ends_with_a_line_and_status_2(places: Places, name: str) -> None:
    """The command says the same."""
    url, words = MISTAKES[name]
    ended = serve(url.format(**places.ports))
    assert (ended.status, len(ended.lines)) == (2, 1)
    assert words in ended.lines[0]
    assert WRONG not in ended.lines[0]
