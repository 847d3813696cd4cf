"""The SQLite broker: the contract, group commit, several on one file, crashes, old copies, full disks, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oncecast.brokers import intake as intake_module
from oncecast.brokers import reads as reads_module
from oncecast.brokers import surplus as surplus_module
from oncecast.brokers.base import Outcome
from oncecast.brokers.sqlite import broker as sqlite_module
from oncecast.brokers.sqlite import pages as pages_module
from oncecast.brokers.sqlite import reader as reader_module
from oncecast.brokers.sqlite import store as sqlite_store
from oncecast.brokers.sqlite import writer as writer_module
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.brokers.sqlite.peers import Peers
from oncecast.core.log import Log
from oncecast.core.place import locate
from oncecast.errors import ConfigurationError, Refusal, UsageError
from oncecast.message import EARLIEST, Cursor, Draft, Kind, Message, Page, Reason, Receipt, Retention, Start, StartKind
from oncecast.testing.broker import CHECKS, BrokerBench, Lab, check_broker
from oncecast.testing.driver import LoopDriver

SECONDS = 60.0  # past it, what is waited for will not come
NOW = 1_764_000_000.0
ENOUGH = 1 << 30


class Rig:
    """Brokers on one file, each with a sink that keeps what it gets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.driver = LoopDriver()
        self.now = NOW
        self.keep = Retention(10**9, 1e12)
        self.kept: dict[str, Retention] = {}
        self.benches: list[BrokerBench] = []

    def broker(self, *, durability: str = "process", key_seconds: float = 86400.0) -> SqliteBroker:
        """Return a broker, not yet open."""
        return SqliteBroker(
            self.path,
            epoch="life",
            wall=lambda: self.now,
            policy=lambda channel: self.kept.get(channel, self.keep),
            durability=durability,
            key_seconds=key_seconds,
        )

    def lab(self, durability: str = "process") -> Lab:
        """Return what makes brokers on the file."""
        return Lab(
            lambda: self.broker(durability=durability),
            self.driver,
            trim=self.trim,
            damage=self.damage,
            close=self.reset,
        )

    def trim(self, channel: str, messages: int) -> None:
        """Keep fewer messages of a channel."""
        self.kept[channel] = Retention(messages, 1e12)

    def damage(self) -> None:
        """Put a row into the file that is no message."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            (channel,) = db.execute("SELECT id FROM channels WHERE name = 'a'").fetchone()
            head = "(SELECT max((SELECT head FROM log), (SELECT max(seq) FROM messages)) + 1)"
            db.execute(f"INSERT INTO messages VALUES ({head}, ?, 9, NULL, 0, 'no bytes')", (channel,))

    def reset(self) -> None:
        """Keep all of each channel."""
        self.kept.clear()

    def open(self) -> BrokerBench:
        """Return a broker that has started, with its sink."""
        bench = BrokerBench(self.broker(), self.lab())
        bench.start()
        self.benches.append(bench)
        return bench

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until the condition holds."""
        self.driver.wait(condition)
        assert condition(), "it never comes"

    def stop(self) -> None:
        """Stop all of them."""
        for bench in self.benches:
            bench.stop()
        self.benches.clear()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A file that is not there yet."""
    made = Rig(tmp_path / "log.db")
    yield made
    made.stop()
    made.driver.close()


@contextlib.contextmanager
def locked(broker: SqliteBroker) -> Iterator[None]:
    """Hold the lock for writing as another process does: `flock` on the broker's own descriptor would not stop it."""
    other = os.open(f"/proc/self/fd/{broker._writer._peers._lock}", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield
    finally:
        os.close(other)


def sqlite(bench: BrokerBench) -> SqliteBroker:
    """The broker of a bench."""
    assert isinstance(bench.broker, SqliteBroker)
    return bench.broker


def data(bench: BrokerBench) -> list[bytes]:
    """What a sink has got."""
    return [message.data for message in bench.messages]


def codes(outcomes: list[Outcome]) -> list[str]:
    """Receipts as `taken`, refusals by their code."""
    return [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]


# -- the contract


@pytest.mark.parametrize("durability", ["process", "fsync"])
@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(rig: Rig, name: str, durability: str) -> None:
    """It passes every check that a broker must pass."""
    numbers = iter(range(1000))

    def lab() -> Lab:
        rig.path = rig.path.with_name(f"{next(numbers)}.db")
        return rig.lab(durability=durability)

    check_broker(lab, name)


def test_what_is_already_there_is_opened(rig: Rig) -> None:
    """The contract's last clause holds for a log that has begun, too."""
    rig.open().receipts(*(Draft(c, b"1") for c in "abac"))
    rig.stop()
    check_broker(rig.lab, "opens_where_it_stands")


def test_it_serves_one_node(rig: Rig) -> None:
    """A second start is a mistake; what is published before the first is refused, and a stop without one is fine."""
    broker = rig.broker()
    early: list[Outcome] = []
    broker.publish((Draft("a", b"1"),), early.extend)
    assert ["unavailable"] == codes(early)
    rig.driver.run(broker.stop())
    bench = rig.open()
    with pytest.raises(UsageError, match="started already"):
        bench.start()


@pytest.mark.parametrize("place", ["nowhere/log.db", "folder"])
def test_what_can_not_be_opened_is_reported(rig: Rig, tmp_path: Path, place: str) -> None:
    """The error names the file, and nothing is left open."""
    (tmp_path / "folder").mkdir()
    rig.path = tmp_path / place
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigurationError, match=f"broker: .*{place}"):
        rig.open()
    assert before == set(os.listdir("/proc/self/fd"))


def test_another_programs_database_is_refused(rig: Rig) -> None:
    """Nothing is left open then, and the lock is let go."""
    db = sqlite3.connect(rig.path)
    db.execute("CREATE TABLE mine (id)")
    db.close()
    with pytest.raises(ConfigurationError, match="another program"):
        rig.open()
    rig.path.unlink()
    assert 1 == len(rig.open().receipts(Draft("a", b"1")))


# -- committing


def test_what_comes_together_is_committed_together(rig: Rig) -> None:
    """While the disk is busy, publishes gather; they are one transaction, in order, each with its own answer."""
    bench = rig.open()
    broker = sqlite(bench)
    commits: list[int] = []
    append = broker._writer._store.append

    def counted(drafts: list[Draft], *rest: float) -> object:
        commits.append(len(drafts))
        return append(drafts, *rest)  # type: ignore[arg-type]

    broker._writer._store.append = counted  # type: ignore[assignment,method-assign]
    answers: list[list[Outcome]] = []
    with locked(broker):  # nobody can commit
        for n in range(50):
            broker.publish([Draft("a", b"%d" % n)] * (n % 3), lambda outcomes: answers.append(list(outcomes)))
    rig.run_until(lambda: len(answers) == 50)
    published = [b"%d" % n for n in range(50) for _ in range(n % 3)]
    assert published == data(bench)
    assert len(published) == sum(commits)
    assert len(commits) <= 2
    assert sorted(len(answer) for answer in answers) == sorted(n % 3 for n in range(50))


def test_a_batch_has_bounds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a number of drafts, or of bytes, the rest is committed next."""
    bench = rig.open()
    sqlite(bench)._intake._most_drafts = 3
    broker = sqlite(bench)
    answers: list[object] = []
    with locked(broker):
        for n in range(10):
            broker.publish([Draft("a", b"%d" % n)], answers.append)
    rig.run_until(lambda: len(answers) == 10)
    assert [b"%d" % n for n in range(10)] == data(bench)


@pytest.mark.parametrize("bound", ["PENDING_DRAFTS", "PENDING_BYTES"])
def test_what_waits_for_the_disk_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Past the bound a publish is refused at once; when the disk has caught up, the next is taken."""
    monkeypatch.setattr(intake_module, bound, 3)
    bench = rig.open()
    broker = sqlite(bench)
    answers: list[Outcome] = []
    with locked(broker):
        broker.publish([Draft("a", b"0")], answers.extend)
        while broker._intake._taken == [0, 0]:  # it is taken, and waits for the lock
            time.sleep(0.001)
        for n in range(1, 6):
            broker.publish([Draft("a", b"%d" % n)], answers.extend)
        assert ["unavailable"] * 2 == codes(answers)
    rig.run_until(lambda: len(answers) == 6)
    assert [b"0", b"1", b"2", b"3"] == data(bench)
    assert ["taken"] == codes(bench.publish(Draft("a", b"6")))


def test_a_defect_in_one_answer_is_not_the_others(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The other publishes of the same commit get their answers. The defect is logged."""
    bench = rig.open()
    broker = sqlite(bench)
    answers: list[Outcome] = []

    def fail(outcomes: object) -> None:
        raise RuntimeError("defect")

    with locked(broker):
        broker.publish([Draft("a", b"1")], fail)
        broker.publish([Draft("a", b"2")], answers.extend)
    rig.run_until(lambda: bool(answers))
    assert ["taken"] == codes(answers)
    assert ["an answer failed; the others go on"] == caplog.messages


def test_a_publish_rings_though_another_has_just_been_heard(rig: Rig) -> None:
    """Each publish is committed when it comes, and not at the thread's next look."""
    bench = rig.open()
    began = time.monotonic()
    for n in range(400):
        bench.receipts(Draft("a", b"%d" % n))
    assert time.monotonic() - began < 400 * writer_module.LOOK_SECONDS / 4


# -- several on one file


def test_two_brokers_on_one_file_see_one_order(rig: Rig) -> None:
    """Each gets its own messages and the other's, all in the order of their numbers."""
    one, two = rig.open(), rig.open()
    for n in range(20):
        (one, two)[n % 2].receipts(Draft("a", b"%d" % n))
    rig.run_until(lambda: len(one.messages) == len(two.messages) == 20)
    assert [b"%d" % n for n in range(20)] == data(one) == data(two)
    assert one.messages == two.messages


def test_a_key_counts_across_brokers_and_openings(rig: Rig) -> None:
    """The same key is in the log once: at another process, and after a restart, until it expires."""
    one, two = rig.open(), rig.open()
    draft = Draft("a", b"1", key="k")
    first = one.receipts(draft)
    assert first == two.receipts(draft)
    rig.stop()
    rig.now += 86399
    again = rig.open()
    assert first == again.receipts(draft)
    rig.now += 1
    assert first != again.receipts(draft)


def test_processes_share_one_log(rig: Rig) -> None:
    """Four processes publish at once: each message is there once, and this one hears all in one order."""
    bench = rig.open()
    code = """
import asyncio, sys
from pathlib import Path
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.message import Draft, Retention

class Sink:
    def begin(self, opening): pass
    def receive(self, messages): pass
    def skip(self, seq): pass
    def fail(self, reason): raise SystemExit(reason)

async def main():
    loop = asyncio.get_running_loop()
    broker = SqliteBroker(Path(sys.argv[1]), epoch="x", wall=lambda: 1_764_000_000.0,
                          policy=lambda channel: Retention(10**9, 1e12))
    await broker.start(Sink())
    for n in range(50):
        done = loop.create_future()
        broker.publish([Draft("a", b"%s-%d" % (sys.argv[2].encode(), n))], done.set_result)
        await done
    await broker.stop()

asyncio.run(main())
"""
    children = [subprocess.Popen([sys.executable, "-c", code, str(rig.path), str(n)]) for n in range(4)]
    rig.run_until(lambda: len(bench.messages) == 200)
    assert [0] * 4 == [child.wait() for child in children]
    assert list(range(1, 201)) == [message.seq for message in bench.messages]
    for n in range(4):
        assert [b"%d-%d" % (n, k) for k in range(50)] == [d for d in data(bench) if d.startswith(b"%d-" % n)]
    page = bench.page("a", EARLIEST)
    assert page is not None
    assert bench.messages == page.messages


def test_a_message_of_a_killed_process_is_there(rig: Rig) -> None:
    """An acknowledged message survives a SIGKILL, and no process waits for the one that was killed."""
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.message import Draft, Retention

class Sink:
    def begin(self, opening): pass
    def receive(self, messages): pass

loop = asyncio.new_event_loop()
broker = SqliteBroker(Path(sys.argv[1]), epoch="x", wall=lambda: 1_764_000_000.0,
                      policy=lambda channel: Retention())
loop.run_until_complete(broker.start(Sink()))
broker.publish([Draft("a", b"1")], lambda outcomes: os.kill(os.getpid(), signal.SIGKILL))
loop.run_forever()
"""
    child = subprocess.run([sys.executable, "-c", code, str(rig.path)], check=False)
    assert -signal.SIGKILL == child.returncode
    bench = rig.open()
    assert [b"1"] == [message.data for message in bench.opening.recent]
    assert bench.receipts(Draft("a", b"2"))[0].seq > 1


def test_a_node_behind_the_trimming_skips(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has not heard trimmed messages goes on after them, and reads the history."""
    one, two = rig.open(), rig.open()
    slow = sqlite(two)
    real = slow._writer._store.follow
    slow._writer._store.follow = lambda seen: (seen, [])  # type: ignore[method-assign] # it hears nothing
    one.receipts(*(Draft("a", b"%d" % n) for n in range(5)))
    fast = sqlite(one)
    other = sqlite_store.Store(rig.path, durability="process")
    with locked(fast):
        other.trims.trim("a", 3)
    other.close()
    slow._writer._store.follow = real  # type: ignore[method-assign]
    rig.run_until(lambda: bool(two.skipped))
    assert ([5], []) == (two.skipped, two.messages)
    two.receipts(Draft("a", b"5"))
    assert [6] == [message.seq for message in two.messages]
    page = two.page("a", EARLIEST)
    assert page is not None
    assert [4, 5, 6] == [message.seq for message in page.messages]


def test_what_waits_for_a_busy_loop_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the loop does not run, no more is read from the file than a bound; then it goes on without a loss."""
    monkeypatch.setattr(writer_module, "OUT_STEPS", 2)
    monkeypatch.setattr(writer_module, "LOOK_SECONDS", 0.001)
    one, two = rig.open(), rig.open()
    busy = sqlite(two)
    published = []
    run, busy._outbox.run = busy._outbox.run, lambda: None  # type: ignore[method-assign]
    for n in range(50):
        published.append(one.receipts(Draft("a", b"%d" % n))[0].seq)
        assert len(busy._outbox) <= 2
    busy._outbox.run = run  # type: ignore[method-assign]
    run()
    rig.run_until(lambda: len(two.messages) == 50)
    assert published == [message.seq for message in two.messages]


# -- retention


def test_what_is_over_is_trimmed_by_number(rig: Rig) -> None:
    """In the background; the newest stay, and the mark is that of the last that went."""
    rig.keep = Retention(messages=10, seconds=1e12)
    bench = rig.open()
    rig.run_until(lambda: True)
    for _ in range(3):
        bench.receipts(*(Draft("a", b"x") for _ in range(100)))
    pages: list[Page] = []

    def trimmed() -> bool:
        page = bench.page("a", EARLIEST)
        assert page is not None
        pages.append(page)
        return len(page.messages) <= 10 + 10 // 8 + surplus_module.COUNT_MESSAGES

    while not trimmed():
        pass
    newest = [message.seq for message in pages[-1].messages]
    assert 300 == newest[-1]
    assert newest[0] - 1 == pages[-1].marks["a"].seq


def test_what_is_old_is_trimmed_by_age(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock, and a channel with nothing left is forgotten after a week."""
    for name in ("SWEEP_SECONDS", "FORGET_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(writer_module, name, 0.001)
    rig.keep = Retention(messages=10, seconds=60)
    bench = rig.open()
    bench.receipts(Draft("a", b"1", key="k"), Draft("b", b"2"))
    rig.now += 61

    def left(channel: str) -> int:
        page = bench.page(channel, EARLIEST)
        assert page is not None
        return len(page.messages)

    while left("a") or left("b"):
        pass
    rig.now += 8 * 86400
    db = sqlite3.connect(rig.path)
    while db.execute("SELECT (SELECT count(*) FROM channels) + (SELECT count(*) FROM keys)").fetchone()[0]:
        pass
    db.close()
    page = bench.page("ab", Start(StartKind.CURSOR, Cursor("life", 0)))
    assert page is not None
    assert {2} == {mark.seq for mark in page.marks.values()}


def test_many_channels_are_counted_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of appended messages are bounded. Past the bound each channel is looked at."""
    monkeypatch.setattr(surplus_module, "COUNTED_CHANNELS", 2)
    bench = rig.open()
    bench.receipts(*(Draft(c, b"1") for c in "abc"))
    broker = sqlite(bench)
    assert {} == broker._writer._surplus._appended


# -- what is lost


def copy_of(path: Path, to: Path) -> None:
    """Copy a file with its write-ahead log, if it has one."""
    to.mkdir()
    for each in (path, path.with_name(f"{path.name}-wal")):
        if each.exists():
            shutil.copy(each, to / each.name)


def put_back(path: Path, copy: Path) -> None:
    """Put a copy in the file's place, as a new file."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for each in copy.iterdir():
        shutil.copy(each, path.with_name(each.name))


def reasons(rig: Rig, bench: BrokerBench, cursor: int) -> list[Reason]:
    """Which gaps a subscriber of channel `a` hears that comes with a cursor."""
    opening = bench.opening
    log = Log(
        "life",
        lambda channel: rig.keep,
        history=True,
        floor=opening.floor,
        marks=opening.marks,
        holes=opening.holes,
    )
    log.head = opening.head
    place = locate(log, ("a",), Start(StartKind.CURSOR, Cursor("life", cursor)))
    assert place is not None
    return [gap.reason for gap in place.gaps]


@pytest.mark.parametrize("clean", [True, False])
def test_an_older_copy_is_noticed(rig: Rig, tmp_path: Path, clean: bool) -> None:
    """Each cursor beyond the copy gets a gap, no cursor before it does, and no number is given twice."""
    bench = rig.open()
    kept = [r.seq for n in range(5) for r in bench.receipts(Draft("a", b"kept"))]
    if clean:
        rig.stop()
    copy_of(rig.path, tmp_path / "copy")
    if clean:
        rig.now += 10
        bench = rig.open()
    lost = [r.seq for n in range(5) for r in bench.receipts(Draft("a", b"lost"))]
    rig.stop()
    put_back(rig.path, tmp_path / "copy")
    rig.now += 10
    again = rig.open()
    new = [r.seq for n in range(5) for r in again.receipts(Draft("a", b"new"))]
    assert set() == set(lost) & set(new)
    assert {Reason.UNKNOWN} == {reason for seq in lost for reason in reasons(rig, again, seq)}
    assert [[Reason.UNKNOWN]] * 5 == [reasons(rig, again, seq) for seq in lost]
    assert [[]] * 5 == [reasons(rig, again, seq) for seq in kept]
    page = again.page("a", EARLIEST)
    assert page is not None
    assert [b"kept"] * 5 + [b"new"] * 5 == [message.data for message in page.messages]


def test_a_lost_end_is_noticed(rig: Rig) -> None:
    """If a power cut takes the end of the write-ahead log, cursors from there get a gap."""
    bench = rig.open()
    kept = bench.receipts(Draft("a", b"1"))[0].seq
    wal = rig.path.with_name("log.db-wal")
    whole = wal.stat().st_size
    lost = bench.receipts(Draft("a", b"2"))[0].seq
    found = rig.path.read_bytes(), wal.read_bytes()[:whole]
    rig.stop()
    rig.path.write_bytes(found[0])
    wal.write_bytes(found[1])
    rig.path.with_name("log.db-shm").unlink(missing_ok=True)
    rig.now += 5
    again = rig.open()
    assert [kept] == [message.seq for message in again.opening.recent]
    assert ([Reason.UNKNOWN], []) == (reasons(rig, again, lost), reasons(rig, again, kept))
    assert again.receipts(Draft("a", b"3"))[0].seq > lost


def test_a_file_that_is_removed_is_the_end(rig: Rig) -> None:
    """The node fails once, publishes and reads are refused, and the new file begins another life."""
    bench, other = rig.open(), rig.open()
    bench.receipts(Draft("a", b"1"))
    rig.path.unlink()
    rig.run_until(lambda: bool(bench.failures and other.failures))
    assert 1 == len(bench.failures)
    assert "was replaced or removed while it was open" in bench.failures[0]
    assert ["unavailable"] == codes(bench.publish(Draft("a", b"2")))
    answer = bench.ask("a", EARLIEST)
    assert isinstance(answer, Refusal)


def test_what_is_committed_to_a_removed_file_is_not_acknowledged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is checked after each commit, before it is acknowledged."""
    monkeypatch.setattr(writer_module, "LOOK_SECONDS", 1e6)
    bench = rig.open()
    bench.receipts(Draft("a", b"1"))
    rig.path.unlink()
    assert ["unavailable"] == codes(bench.publish(Draft("a", b"2")))
    rig.run_until(lambda: bool(bench.failures))
    assert [b"1"] == data(bench)


def test_a_file_put_back_under_open_brokers_is_a_new_life(rig: Rig, tmp_path: Path) -> None:
    """A new node begins it, although another node still has the old file open."""
    bench, other = rig.open(), rig.open()
    bench.receipts(Draft("a", b"kept"))
    copy_of(rig.path, tmp_path / "copy")
    lost = bench.receipts(Draft("a", b"lost"))[0].seq
    stuck = sqlite(other)
    stuck._writer._in_place = lambda: True  # type: ignore[method-assign] # it has not noticed yet
    put_back(rig.path, tmp_path / "copy")
    rig.run_until(lambda: bool(bench.failures))
    rig.now += 5
    again = rig.open()
    assert [Reason.UNKNOWN] == reasons(rig, again, lost)
    assert again.receipts(Draft("a", b"new"))[0].seq > lost


def test_an_end_that_is_gone_is_the_end(rig: Rig) -> None:
    """The broker fails if the log has less than this process has seen."""
    bench = rig.open()
    bench.receipts(Draft("a", b"1"), Draft("a", b"2"))
    broker = sqlite(bench)
    broker._writer._store.follow = lambda seen: (1, [])  # type: ignore[method-assign]
    rig.run_until(lambda: bool(bench.failures))
    assert "its end is gone" in bench.failures[0]


# -- a disk that fails


def test_a_full_disk_refuses_and_heals(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Publishes are refused with `unavailable`, reads go on, the log says so once, and with room all is as before."""
    bench = rig.open()
    bench.receipts(Draft("a", b"1"))
    broker = sqlite(bench)
    with locked(broker):
        pages = broker._writer._store._db.execute("PRAGMA page_count").fetchone()[0]
        broker._writer._store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = Draft("a", bytes(100_000), Kind.BINARY)
    with caplog.at_level(logging.WARNING):
        assert [["unavailable"]] * 3 == [codes(bench.publish(big)) for _ in range(3)]
        page = bench.page("a", EARLIEST)
        assert page is not None
        assert [b"1"] == [message.data for message in page.messages]
        with locked(broker):
            broker._writer._store._db.execute("PRAGMA max_page_count = 1000000")
        assert ["taken"] == codes(bench.publish(big))
    assert ["can't be written to or read: database or disk is full", "is written to again"] == [
        text.partition("log.db ")[2].partition(";")[0] for text in caplog.messages
    ]
    assert [1, 2] == [message.seq for message in bench.messages]


def test_trimming_waits_for_a_disk_that_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming is put off, and publishes are still taken."""
    monkeypatch.setattr(writer_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(writer_module, "LOOK_SECONDS", 0.001)
    rig.keep = Retention(messages=10, seconds=60)
    bench = rig.open()
    broker = sqlite(bench)
    failed = threading.Event()

    def fail(name: str, last: int) -> bool:
        failed.set()
        raise sqlite3.OperationalError("disk I/O error")

    real, broker._writer._store.trims.trim = broker._writer._store.trims.trim, fail  # type: ignore[method-assign]
    bench.receipts(Draft("a", b"1"))
    rig.now += 61
    assert failed.wait(SECONDS)
    bench.receipts(Draft("b", b"2"))
    broker._writer._store.trims.trim = real  # type: ignore[method-assign]
    while (page := bench.page("a", EARLIEST)) and page.messages:
        pass


def test_a_read_that_fails_is_refused(rig: Rig) -> None:
    """The read is refused with `unavailable`, the next may be answered, and messages of others are read again."""
    bench = rig.open()
    bench.receipts(Draft("a", b"1"))
    broker = sqlite(bench)

    def fail(*rest: object) -> Page:
        raise sqlite3.OperationalError("disk I/O error")

    real, broker._reader._store.pages.steps = broker._reader._store.pages.steps, fail  # type: ignore[method-assign,assignment]
    follow, broker._writer._store.follow = broker._writer._store.follow, fail  # type: ignore[method-assign,assignment]
    answer = bench.ask("a", EARLIEST)
    assert isinstance(answer, Refusal)
    assert "unavailable" == answer.code
    broker._reader._store.pages.steps, broker._writer._store.follow = real, follow  # type: ignore[method-assign]
    assert isinstance(bench.ask("a", EARLIEST), Page)


def test_a_defect_in_the_thread_is_the_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Each waiting publish and read is refused, and the node fails."""
    bench = rig.open()
    broker = sqlite(bench)

    def fail(*rest: object) -> object:
        raise ValueError("defect")

    broker._writer._store.append = fail  # type: ignore[assignment,method-assign]
    assert ["unavailable"] == codes(bench.publish(Draft("a", b"1")))
    rig.run_until(lambda: bool(bench.failures))
    assert "the thread of the log has failed: defect" in bench.failures[0]


# -- the end


def test_a_close_commits_what_waits(rig: Rig) -> None:
    """Each publish before `close` is answered before `close` returns, and is in the log."""
    bench = rig.open()
    answers: list[Outcome] = []
    for n in range(100):
        bench.broker.publish([Draft("a", b"%d" % n)], answers.extend)
    bench.stop()
    assert ["taken"] * 100 == codes(answers)
    assert 100 == len(bench.messages)
    assert 100 == len(rig.open().opening.recent)


def test_a_close_answers_each_read(rig: Rig) -> None:
    """Each open read gets a page or `unavailable` before `close` returns."""
    bench = rig.open()
    answers: list[Page | Refusal] = []
    for _ in range(50):
        bench.broker.read(("a",), EARLIEST, 10, 10, answers.append)
    bench.stop()
    assert 50 == len(answers)


def test_reads_that_wait_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a read is refused at once."""
    monkeypatch.setattr(reads_module, "PENDING_READS", 0)
    answer = rig.open().ask("a", EARLIEST)
    assert isinstance(answer, Refusal)
    assert 1 == answer.retry_after


def test_a_close_does_not_wait_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process keeps the lock, waiting publishes are refused, and the process can end."""
    monkeypatch.setattr(sqlite_module, "STOP_SECONDS", 0.05)
    bench = rig.open()
    broker = sqlite(bench)
    holder = Peers(rig.path)
    answers: list[Outcome] = []
    with holder.lock():
        broker.publish([Draft("a", b"1")], answers.extend)
        while not broker._writer.under_way:
            time.sleep(0.001)
        broker.publish([Draft("a", b"2")], answers.extend)
        bench.stop()
        assert ["unavailable"] * 2 == codes(answers)
    broker._writing.thread.join(SECONDS)  # it has the lock now, and nobody waits for it
    assert not broker._writing.thread.is_alive()
    broker._writer.bell.close()
    holder.close()
    assert [] == list(rig.open().opening.recent[1:])


async def test_it_runs_on_a_loop(rig: Rig) -> None:
    """The broker calls back on the loop that called it."""
    loop = asyncio.get_running_loop()
    here = threading.get_ident()
    seen: list[tuple[int, list[Message]]] = []

    class Sink(BrokerBench):
        def receive(self, messages: object, /) -> None:
            seen.append((threading.get_ident(), list(messages)))  # type: ignore[call-overload]

    broker = SqliteBroker(
        rig.path,
        epoch="life",
        wall=lambda: rig.now,
        policy=lambda channel: rig.keep,
    )
    await broker.start(Sink(broker, rig.lab()))
    done: asyncio.Future[list[Outcome]] = loop.create_future()
    broker.publish([Draft("a", b"1")], lambda outcomes: done.set_result(list(outcomes)))
    (receipt,) = await asyncio.wait_for(done, SECONDS)
    await broker.stop()
    assert isinstance(receipt, Receipt)
    assert [(here, 1)] == [(thread, len(messages)) for thread, messages in seen]


# -- what harms nobody else


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 10**26, 1e300])
def test_a_number_that_sqlite_does_not_have_is_a_page(rig: Rig, number: float) -> None:
    """`last` beyond 64 bits reads everything, and the history thread goes on."""
    rig.keep = Retention(messages=5, seconds=1e12)
    bench = rig.open()
    bench.receipts(*(Draft("a", b"%d" % n) for n in range(9)))
    sqlite(bench)._writer._due["a"] = 4
    while (page := bench.page("a", Start(StartKind.LAST, number=number))) and len(page.messages) == 9:
        pass
    assert page is not None
    assert [5, 6, 7, 8, 9] == [message.seq for message in page.messages]
    rig.stop()
    rig.now += 5
    again = rig.open()
    for start in (Start(StartKind.LAST, number=number), Start(StartKind.SINCE, number=number)):
        assert isinstance(again.ask("ax", start, 0), Page)
    assert isinstance(again.ask("a", Start(StartKind.CURSOR, Cursor("life", 2**63 - 1))), Page)


def test_a_defect_in_a_read_is_one_answer(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The other reads are answered, and the log has the cause."""
    bench = rig.open()
    bench.receipts(Draft("a", b"1"))
    pages = sqlite(bench)._reader._store.pages
    real = pages._place

    def fail(*rest: object) -> int:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    pages._place = fail  # type: ignore[method-assign,assignment]
    answer = bench.ask("a", EARLIEST)
    assert isinstance(answer, Refusal)
    assert "internal" == answer.code
    pages._place = real  # type: ignore[method-assign]
    assert isinstance(bench.ask("a", EARLIEST), Page)
    assert [f"a read has failed: {('a',)} from {EARLIEST}"] == caplog.messages


@pytest.mark.parametrize("thread", ["log", "history"])
def test_a_thread_that_ends_is_noticed(rig: Rig, thread: str) -> None:
    """What the thread held is refused, the node fails, and later calls are refused at once."""
    bench = rig.open()
    broker = sqlite(bench)

    def fail(*rest: object) -> object:
        raise SystemExit("defect")

    reads: list[Page | Refusal] = []
    outcomes: list[Outcome] = []
    if thread == "log":
        broker._writer._commit = fail  # type: ignore[assignment,method-assign]
    else:
        broker._reader._serve = fail  # type: ignore[assignment,method-assign]
        broker.read(("a",), EARLIEST, 1, 1, reads.append)
        broker.read(("b",), EARLIEST, 1, 1, reads.append)
    if thread == "log":
        broker.publish([Draft("a", b"1")], outcomes.extend)
    rig.run_until(lambda: bool(bench.failures) and len(reads) == (2 if thread == "history" else 0))
    assert [f"broker: {rig.path}: the thread of the {thread} has failed: defect"] == bench.failures
    assert [] == [answer for answer in reads if isinstance(answer, Page)]
    assert ["unavailable"] == codes(outcomes or bench.publish(Draft("a", b"1")))
    assert isinstance(bench.ask("a", EARLIEST), Refusal)


def test_a_delivery_that_raises_is_not_acknowledged(rig: Rig) -> None:
    """The message is in the log, but the publish is refused, the node fails, and nothing follows."""

    class Deaf(BrokerBench):
        def receive(self, messages: object, /) -> None:
            raise ValueError("defect")

    lab = rig.lab()
    bench = Deaf(lab.make(), lab)
    bench.start()
    rig.benches.append(bench)
    assert ["unavailable"] == codes(bench.publish(Draft("a", b"1")))
    assert ["a delivery failed: ValueError('defect')"] == bench.failures
    assert ["unavailable"] == codes(bench.publish(Draft("a", b"2")))


def test_a_costly_read_does_not_hold_up_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """`last` of many channels is read a channel at a time; a page that costs little is served in between."""
    monkeypatch.setattr(reader_module, "SLICE_SECONDS", 0.0)
    bench = rig.open()
    names = [f"c{n}" for n in range(64)]
    bench.receipts(*(Draft(name, b"1") for name in names))
    broker = sqlite(bench)
    floor = broker._reader._store.pages._floor
    began, go = threading.Event(), threading.Event()

    def wait(name: str, count: float) -> int:
        began.set()
        go.wait(SECONDS)
        return floor(name, count)

    monkeypatch.setattr(broker._reader._store.pages, "_floor", wait)
    order: list[str] = []
    last = Start(StartKind.LAST, number=10**17)
    for _ in range(20):
        broker.read(names, last, 10, ENOUGH, lambda page: order.append("costly"))
    assert began.wait(SECONDS)
    broker.read(("c1",), EARLIEST, 10, ENOUGH, lambda page: order.append("honest"))
    go.set()
    rig.run_until(lambda: len(order) == 21)
    assert "honest" == order[0]


def test_a_read_that_takes_too_long_is_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that goes on for seconds is interrupted, and a read whose time is over is not begun."""
    monkeypatch.setattr(pages_module, "STEP_INSTRUCTIONS", 1)
    monkeypatch.setattr(pages_module, "STEP_SECONDS", -1.0)
    bench = rig.open()
    bench.receipts(*(Draft("a", b"1") for _ in range(50)))
    answer = bench.ask("a", Start(StartKind.LAST, number=50))
    assert (True, "unavailable") == (isinstance(answer, Refusal), getattr(answer, "code", None))
    monkeypatch.setattr(pages_module, "STEP_SECONDS", 60.0)
    assert isinstance(bench.ask("a", EARLIEST), Page)
    monkeypatch.setattr(reads_module, "ANSWER_SECONDS", 0.0)
    assert reads_module.LATE is bench.ask("a", EARLIEST)


def test_a_lock_that_is_not_let_go_makes_it_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker whose file stays locked is unready, refuses publishes without committing them later, and comes back."""
    monkeypatch.setattr(sqlite_module, "WATCH_SECONDS", 0.001)
    bench = rig.open()
    bench.receipts(Draft("a", b"1"))
    holder = Peers(rig.path)
    with holder.lock(), monkeypatch.context() as while_locked:
        while_locked.setattr(sqlite_module, "STUCK_SECONDS", 0.01)
        assert ["unavailable"] == codes(bench.publish(Draft("a", b"2")))
        rig.run_until(lambda: bench.unready is not None)
        assert "another process holds its lock" in (bench.unready or "")
        assert ["unavailable"] == codes(bench.publish(Draft("a", b"3")))
        assert isinstance(bench.ask("a", EARLIEST), Page)
    rig.run_until(lambda: bench.unready is None)
    bench.receipts(Draft("a", b"4"))
    assert [b"1", b"4"] == data(bench)
    holder.close()


# -- the start


def test_a_start_that_has_to_wait_for_the_lock_has_a_deadline(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the lock, what opens later is closed, and a second start works."""
    rig.open().receipts(Draft("a", b"1"))
    rig.stop()
    monkeypatch.setattr(sqlite_module, "OPEN_SECONDS", 0.05)
    before = len(os.listdir("/proc/self/fd"))
    holder = Peers(rig.path)
    with holder.lock(), pytest.raises(ConfigurationError, match=r"another process has held its lock for 0\.05 s"):
        rig.open()
    holder.close()
    monkeypatch.setattr(sqlite_module, "OPEN_SECONDS", SECONDS)
    rig.run_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert [b"1"] == [message.data for message in rig.open().opening.recent]


def test_a_sink_that_fails_to_begin_leaves_nothing_open(rig: Rig) -> None:
    """Files, sockets and threads are closed again."""

    class Broken(BrokerBench):
        def begin(self, opening: object, /) -> None:
            raise ValueError("defect")

    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    lab = rig.lab()
    with pytest.raises(ValueError, match="defect"):
        Broken(lab.make(), lab).start()
    rig.run_until(lambda: len(os.listdir("/proc/self/fd")) <= before[0] and threading.active_count() <= before[1])


async def test_a_stop_during_the_start_wins(rig: Rig) -> None:
    """Nothing is served, and nothing is left open."""
    before = len(os.listdir("/proc/self/fd"))
    broker = rig.broker()
    starting = asyncio.create_task(broker.start(BrokerBench(broker, rig.lab())))
    await asyncio.sleep(0)
    await broker.stop()
    with pytest.raises(UsageError, match="stopped while it started"):
        await starting
    assert len(os.listdir("/proc/self/fd")) <= before


def test_nothing_is_made_beside_a_file_that_is_not_ours(rig: Rig) -> None:
    """A file of another program, or of another release, is left as it was found."""
    other = rig.path.with_name("other.db")
    for content, error in ((b"no database at all" * 100, "not a database"), (None, "of version 99")):
        if content is None:
            rig.open()
            rig.stop()
            for beside in rig.path.parent.iterdir():
                if beside.name.startswith("log.db-w") and beside.is_dir():
                    beside.rmdir()
                elif beside != rig.path:
                    beside.unlink()
            db = sqlite3.connect(rig.path)
            db.execute("PRAGMA user_version = 99")
            db.close()
            rig.path.rename(other)
        else:
            other.write_bytes(content)
        rig.path = other
        found = sorted(path.name for path in other.parent.iterdir())
        with pytest.raises(ConfigurationError, match=error):
            rig.open()
        assert found == sorted(path.name for path in other.parent.iterdir())
        rig.path = other.with_name("log.db")
        other.unlink()


async def test_a_stop_does_not_hold_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process has the lock, the loop turns on, and the stop ends after its time."""
    monkeypatch.setattr(sqlite_module, "STOP_SECONDS", 1.0)
    broker = rig.broker()
    await broker.start(BrokerBench(broker, rig.lab()))
    answers: list[Outcome] = []
    holder = Peers(rig.path)
    with holder.lock():
        broker.publish([Draft("a", b"1")], answers.extend)
        stopping = asyncio.create_task(broker.stop())
        turns = 0
        while not stopping.done():
            turns += 1
            await asyncio.sleep(0.001)
        await stopping
    assert ["unavailable"] == codes(answers)
    assert turns > 5
    holder.close()
    assert await broker._writing.wait(SECONDS)
    broker._writer.bell.close()


def test_what_another_file_has_left_is_set_aside(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A write-ahead log beside a file that was put in its place is kept, and not mixed with it."""
    rig.open().receipts(Draft("a", b"kept"))
    rig.stop()
    copy = rig.path.read_bytes()
    rig.now += 5
    bench = rig.open()
    bench.receipts(Draft("a", b"lost"))
    wal = rig.path.with_name("log.db-wal")
    left = wal.read_bytes()
    rig.stop()
    rig.path.unlink()
    rig.path.write_bytes(copy)
    wal.write_bytes(left)
    rig.now += 5
    again = rig.open()
    assert [b"kept"] == [message.data for message in again.opening.recent]
    aside = rig.path.with_name(f"log.db-wal-{int(rig.now)}")
    assert left == aside.read_bytes()
    assert [True] == ["set aside" in text for text in caplog.messages]


def test_a_broken_file_is_reported(rig: Rig) -> None:
    """An error that SQLite finds after the check of the tables is one line, and nothing is left open."""
    rig.open().receipts(Draft("a", b"1"))
    rig.stop()
    with contextlib.closing(sqlite3.connect(rig.path)) as db:
        db.execute("DROP TABLE holes")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigurationError, match=r"broker: .*no such table: holes"):
        rig.open()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_the_writer_ends_while_it_is_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that has failed is looked at no more, and may be stopped."""
    monkeypatch.setattr(sqlite_module, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(sqlite_module, "STUCK_SECONDS", 0.0)
    broker = rig.broker()
    bench = BrokerBench(broker, rig.lab())
    await broker.start(bench)
    broker._fail("gone")
    broker._fail("gone again")
    for _ in range(10):
        await asyncio.sleep(0)
    assert (["gone"], None) == (bench.failures, bench.unready)
    await broker.stop()
