"""The processes that share a file: the locks between them, the datagrams, and what the dead leave behind."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncecast.brokers.sqlite.peers import LIST_SECONDS, Peers

CHILD = """
import sys
from pathlib import Path
from oncecast.brokers.sqlite.peers import Peers

peers = Peers(Path(sys.argv[1]))
for line in sys.stdin:
    match line.split():
        case ["join", file]:
            with peers.lock():
                print(peers.join(file), flush=True)
        case ["lock"]:
            held = peers.lock()
            held.__enter__()
            print("locked", flush=True)
        case ["unlock"]:
            held.__exit__(None, None, None)
            print("unlocked", flush=True)
        case ["wake"]:
            peers.wake(0.0)
            print("woken", flush=True)
        case ["hear"]:
            import select
            select.select([peers.socket], [], [])
            print(peers.hear(), flush=True)
"""


class Child:
    """Another process with the file open, which runs the given commands."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, command: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """Wait for what it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Tell it, and wait."""
        self.say(command)
        return self.answer()

    def end(self) -> None:
        """Kill it, as a crash does."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """A process that has not joined yet."""
    made = Child(tmp_path / "log.db")
    yield made
    made.end()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    """This process, not joined yet."""
    made = Peers(tmp_path / "log.db")
    yield made
    made.close()


def join(peers: Peers, file: str = "1") -> bool:
    """Join inside the lock."""
    with peers.lock():
        return peers.join(file)


def sockets(path: Path) -> list[str]:
    """What is in the folder of the sockets."""
    return sorted(os.listdir(f"{path}-wake"))


def test_the_first_is_alone_and_the_next_is_not(peers: Peers, child: Child) -> None:
    """`join` says whether other members are there, in other processes too."""
    assert join(peers)
    assert "False" == child.ask("join 1")


def test_a_killed_member_frees_everything(peers: Peers, child: Child) -> None:
    """A process that is killed while it holds the lock frees it, and is no longer a member."""
    assert "True" == child.ask("join 1")
    assert "locked" == child.ask("lock")
    child.end()
    assert join(peers)


def test_one_holds_the_lock_at_a_time(peers: Peers, child: Child) -> None:
    """Another process waits until it is let go, also by an exception."""

    def fail() -> None:
        with peers.lock():
            child.say("lock")
            assert child.process.stdout is not None
            assert ([], [], []) == select.select([child.process.stdout], [], [], 0.2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "locked" == child.answer()
    assert "unlocked" == child.ask("unlock")


def test_a_file_that_was_replaced_is_joined_alone(tmp_path: Path, peers: Peers, child: Child) -> None:
    """Members that have the old file open do not count. The next one joins the new life."""
    assert join(peers, "old")
    assert "True" == child.ask("join new")
    third = Peers(tmp_path / "log.db")
    assert not join(third, "new")
    third.close()


def test_a_datagram_wakes_the_others_and_not_oneself(tmp_path: Path, peers: Peers, child: Child) -> None:
    """Each other member is woken, and several datagrams are heard as one."""
    child.ask("join 1")
    join(peers)
    child.say("hear")
    peers.wake(0.0)
    assert "True" == child.answer()
    assert not peers.hear()
    child.ask("wake")
    child.ask("wake")
    select.select([peers.socket], [], [])
    assert [True, False] == [peers.hear(), peers.hear()]


def test_a_member_with_a_full_socket_holds_up_nobody(tmp_path: Path, peers: Peers) -> None:
    """A member whose socket is full is skipped, and the others are still woken."""
    join(peers)
    deaf, other = Peers(tmp_path / "log.db"), Peers(tmp_path / "log.db")
    join(deaf)
    join(other)
    missed = 0
    for _ in range(2000):
        peers.wake(0.0)
        missed += not other.hear()
        # As if the queue of one, which net.unix.max_dgram_qlen bounds, were longer than a sender's buffer.
        for met in peers._others.values():
            met.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    heard = deaf.hear()
    deaf.close()
    other.close()
    assert (0, True) == (missed, heard)


def test_the_sockets_of_the_dead_go(tmp_path: Path, peers: Peers, child: Child) -> None:
    """Waking removes sockets without a listener, and joining alone removes all of them."""
    path = tmp_path / "log.db"
    join(peers)
    child.ask("join 1")
    assert 2 == len(sockets(path))
    child.end()
    peers.wake(0.0)
    assert 1 == len(sockets(path))
    peers.close()
    assert [] == sockets(path)
    (tmp_path / "log.db-wake" / "1-left").touch()
    alone = Peers(path)
    assert join(alone)
    assert 1 == len(sockets(path))
    peers.__init__(path)  # type: ignore[misc] # for the fixture to close
    alone.close()


def test_a_socket_that_has_gone_is_passed_over(tmp_path: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may leave between the listing and the datagram. The others are woken."""
    join(peers)
    leaves, stays = Peers(tmp_path / "log.db"), Peers(tmp_path / "log.db")
    join(leaves)
    join(stays)
    found = sockets(tmp_path / "log.db")
    monkeypatch.setattr(os, "listdir", lambda folder: ["gone", *found])
    leaves.close()
    for now in (0.0, 1.0):
        peers.wake(now)
        assert stays.hear()
    stays.close()


def test_the_folder_is_listed_again(tmp_path: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed after a change and after a time. Without a free descriptor the known members are woken."""
    join(peers)
    peers.wake(0.0)
    other = Peers(tmp_path / "log.db")
    join(other)
    peers.wake(0.1)
    assert other.hear()
    listed = []

    def list_none(folder: int) -> list[str]:
        listed.append(folder)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "listdir", list_none)
    peers.wake(0.2)
    peers.wake(0.2 + LIST_SECONDS)
    assert (1, True) == (len(listed), other.hear())
    other.close()


def test_a_path_may_be_longer_than_a_sockets_name(tmp_path: Path) -> None:
    """The name of a socket is at most 108 bytes (unix(7)); the folder's is not part of it."""
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    one, two = Peers(folder / "log.db"), Peers(folder / "log.db")
    assert (True, False) == (join(one), join(two))
    one.wake(0.0)
    assert two.hear()
    one.close()
    two.close()


def test_without_proc_it_does_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket has the folder's name. If that is too long, there is no socket, and it polls."""
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    one, two = Peers(tmp_path / "l.db"), Peers(tmp_path / "l.db")
    join(one)
    join(two)
    one.wake(0.0)
    assert two.hear() or len(str(tmp_path)) > 70
    one.close()
    two.close()
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    far = Peers(folder / "l.db")
    assert join(far)
    far.wake(0.0)
    assert ([], False) == (sockets(folder / "l.db"), far.hear())
    far.close()


def test_a_folder_that_can_not_be_written_to_is_reported(tmp_path: Path) -> None:
    """The broker raises an error that names the file."""
    with pytest.raises(OSError, match="No such file"):
        Peers(tmp_path / "nowhere" / "log.db")
