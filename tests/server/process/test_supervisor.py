"""A supervisor and its workers, as real processes: they share a port, are replaced when they die, and end together.

Each worker has a memory broker of its own here, so the epoch in an answer tells which of them gave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import pytest_asyncio

import oncecast
from oncecast.server.measures import Measures
from oncecast.server.process import supervisor as module
from oncecast.server.process.child import WorkerState
from oncecast.server.process.control import Pace, Total
from oncecast.server.process.supervisor import Supervisor, SupervisorPhase, pause_after
from oncecast.server.settings import Settings

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Site

SECONDS = 60.0  # what takes longer has failed
T = TypeVar("T")
PROGRAM = """
import sys, pathlib
from oncecast.server import config
from oncecast.server.config import sources
from oncecast.server.run import run
read = lambda: config.load(file=pathlib.Path(sys.argv[1]), environ={}, flags={}).settings
sources.check_together = lambda settings, sources: None  # which would not have a memory broker for each worker
sys.exit(run(read(), read))
"""
BASE = 'workers = 2\nbroker = "memory://"\n'
# Stands in every new process's way, once the file is there.
OBSTACLE = (
    "import os, sys\nif os.path.exists({flag!r}) and 'oncecast.server.process.worker' in sys.orig_argv: os._exit(3)\n"
)
POLL = b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STREAM_END = b"d\r\nretry: 1000\n\n\r\n0\r\n\r\n"


class Running:
    """A supervisor's process, and a way to its workers."""

    def __init__(self, process: asyncio.subprocess.Process, site: Site, folder: Path) -> None:
        self.process = process
        self.site = site
        self.config = folder / "oncecast.toml"
        self.obstacle = folder / "obstacle"
        self.log: list[str] = []

    @property
    def workers(self) -> list[int]:
        """The pids of its workers, oldest first."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def logged(self, pattern: str) -> str:
        """Read the log up to a line that has the pattern."""
        assert self.process.stderr is not None
        while True:
            line = (await asyncio.wait_for(self.process.stderr.readline(), SECONDS)).decode()
            assert line, f"the log has ended, with no {pattern!r} in {self.log}"
            self.log.append(line)
            if re.search(pattern, line):
                return line

    async def rest(self) -> list[str]:
        """Wait for its end, and return what it has logged since, without the times."""
        assert self.process.stderr is not None
        rest = (await asyncio.wait_for(self.process.stderr.read(), SECONDS)).decode().splitlines()
        await asyncio.wait_for(self.process.wait(), SECONDS)
        return [re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]{12}Z ", "", line) for line in rest]

    async def end(self) -> None:
        """End it if it runs: as it should, else by force."""
        if self.process.returncode is not None:
            return
        pids = [self.process.pid]
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends this moment
            pids += self.workers
            self.process.terminate()
        try:
            await self.rest()
        except TimeoutError:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise

    async def ask(self, request: bytes) -> Answer:
        """Ask on a new connection."""
        return await asyncio.wait_for((await self.site.connect(request)).answer(), SECONDS)

    async def epoch(self) -> str:
        """Return the epoch of the worker that a new connection comes to."""
        return str((await self.ask(POLL)).json["cursor"]).partition("-")[0]

    async def epochs(self, count: int) -> set[str]:
        """Ask until so many different workers have answered."""
        found: set[str] = set()
        for _ in range(500):
            found.add(await self.epoch())
            if len(found) == count:
                return found
        raise AssertionError(f"only {found} answer")

    async def streams(self) -> dict[str, Any]:
        """Open a stream of events at each of two workers; returns them by epoch."""
        found: dict[str, Any] = {}
        while len(found) < 2:
            peer = await self.site.connect(
                b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
            )
            opening = await asyncio.wait_for(peer.until(b"retry: 1000\n\n\r\n"), SECONDS)
            found.setdefault(re.findall(rb"id: (\w+)-", opening)[0].decode(), peer)
        return found

    async def metrics(self) -> dict[str, float]:
        """Return the metrics without labels."""
        text = (await self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).body.decode()
        return {name: float(value) for name, value in re.findall(r"^oncecast_(\w+) (\S+)$", text, re.MULTILINE)}

    async def overview(self, query: bytes = b"") -> dict[str, Any]:
        """Return the overview, which `dev` opens."""
        answer = await self.ask(b"GET /v1/overview%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % query)
        assert 200 == answer.status, answer.body
        found: dict[str, Any] = answer.json
        return found

    async def of_any(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is asked for, also while a worker takes no connections."""
        asking = [asyncio.ensure_future(ask()) for _ in range(12)]
        done, waiting = await asyncio.wait(asking, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return done.pop().result()


Start = Callable[..., Awaitable[Running]]


@pytest_asyncio.fixture
async def start(tmp_path: Path, make_site: Callable[..., Site]) -> AsyncIterator[Start]:
    """Start a supervisor and its workers; none of them is left at the end."""
    started: list[Running] = []

    async def start(settings: str = "") -> Running:
        file = tmp_path / "oncecast.toml"
        file.write_text(f"{BASE}port = 0\n{settings}")
        (tmp_path / "sitecustomize.py").write_text(OBSTACLE.format(flag=str(tmp_path / "obstacle")))
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(file)),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), source])},
        )
        running = Running(process, make_site(SimpleNamespace(port=0), None), tmp_path)
        started.append(running)
        port = re.findall(r":(\d+)$", await running.logged("is listening on http://127.0.0.1:"))
        running.site.server.port = int(port[0])
        return running

    yield start
    for running in started:
        for peer in running.site.peers:
            peer.close()
        await running.end()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(int(SECONDS * 1000)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def stat(pid: int) -> str:
    """Return what the kernel says of a process. Raises `FileNotFoundError`."""
    return Path(f"/proc/{pid}/stat").read_text()


async def gone(pid: int) -> None:
    """Wait until a process is gone, or only its exit status is left."""
    for _ in range(int(SECONDS * 100)):
        try:
            if ") Z " in stat(pid):
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{pid} is still there")


# -- serving together


async def test_workers_share_a_port_and_a_log(start: Start) -> None:
    """Each worker gets a share of the connections, `/metrics` at any of them has the sums, and one log has them all."""
    running = await start("[limits]\nconnections = 50")
    assert 2 == len(await running.epochs(2))
    streams = await running.streams()
    for _ in range(4):
        answer = await running.ask(
            b"POST /v1/channels/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n42"
        )
        assert 201 == answer.status
    before = await running.metrics()
    assert (2, 0, 0, 4) == tuple(
        before[name] for name in ("workers", "worker_restarts_total", "workers_silent", "publishes_total")
    )
    assert before["subscriptions"] >= 2 == len(streams)
    after = await running.metrics()
    assert after["connections_opened_total"] == before["connections_opened_total"] + 1


async def test_the_overview_has_all_workers(start: Start) -> None:
    """Any worker's answer has the workers with their figures, the sums, and the channels' listeners together."""
    running = await start("dev = true")
    streams = await running.streams()
    found = await running.overview()
    assert (2, 0, True) == tuple(found["node"][name] for name in ("workers", "silent", "ready"))
    assert sorted(running.workers) == sorted(worker["pid"] for worker in found["workers"])
    (channel,) = [row for row in found["channels"]["listed"] if row["name"] == "a"]
    assert found["channels"]["complete"]
    assert channel["listeners"] == found["connections"]["listeners"]["sse"] >= len(streams)
    assert sum(worker["connections"] for worker in found["workers"]) == found["connections"]["open"]
    async with asyncio.timeout(SECONDS):
        while True:  # each is asked for by itself; a worker that is busy for a second would be missing
            asked = await asyncio.gather(*(running.overview(b"?channel=" + name) for name in (b"a", b"b")))
            one, other = asked
            if not any(each["node"]["silent"] for each in asked):
                break
    assert channel["listeners"] == one["listeners"]["total"] == len(one["listeners"]["listed"])
    assert ("b", 0, None) == (other["listeners"]["channel"], other["listeners"]["total"], found["listeners"])
    (node,) = found["nodes"]
    assert (True, 2, []) == (node["this"], node["processes"], node["unready"])


async def test_a_worker_that_is_stuck_does_not_hold_up_the_metrics(start: Start) -> None:
    """Within a second or two the others' sums are there, and that one is missing is one of them; the overview too."""
    running = await start("dev = true")
    streams = await running.streams()
    stuck = running.workers[0]
    os.kill(stuck, signal.SIGSTOP)
    try:
        for peer in streams.values():  # one of them is at the other worker
            peer.close()
        found, seen = await asyncio.gather(running.of_any(running.metrics), running.of_any(running.overview))
        assert (1, 2) == (found["workers_silent"], found["workers"])
        assert (1, False) == (seen["node"]["silent"], seen["node"]["ready"])
        assert stuck not in [worker["pid"] for worker in seen["workers"]]
    finally:
        os.kill(stuck, signal.SIGCONT)


# -- a worker dies


async def test_a_worker_that_dies_is_replaced_and_the_others_do_not_notice(start: Start) -> None:
    """SIGKILL of one cuts its subscribers alone; it is logged, counted, and a successor serves in its place."""
    running = await start()
    first, second = (await running.streams()).items()
    old = running.workers
    os.kill(old[0], signal.SIGKILL)
    line = await running.logged(r"worker 1 \(process \d+\) was ended by SIGKILL; its successor starts")
    assert f"process {old[0]}" in line
    cut, whole = (first, second) if await _ends(first[1]) else (second, first)
    assert whole[0] in await running.epochs(2)
    assert cut[0] not in await running.epochs(2)
    assert [old[1]] == [pid for pid in running.workers if pid in old]
    assert not await _ends(whole[1])
    assert 1 == (await running.metrics())["worker_restarts_total"]


async def _ends(peer: Any) -> bool:
    try:
        return b"" == bytes(await asyncio.wait_for(peer.reader.read(1), 0.5))
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_a_client_of_a_killed_worker_is_served_by_its_successor(start: Start) -> None:
    """A connection that a worker had not accepted when it died is not reset: its slot's socket outlives it."""
    running = await start()
    epochs = await running.epochs(2)
    stopped = running.workers[0]
    os.kill(stopped, signal.SIGSTOP)
    peers = [await running.site.connect(POLL) for _ in range(16)]
    answers = [asyncio.create_task(peer.answer()) for peer in peers]
    done, waiting = await asyncio.wait(answers, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert done
    assert waiting
    os.kill(stopped, signal.SIGKILL)
    answered = await asyncio.wait_for(asyncio.gather(*answers), SECONDS)
    assert {200} == {answer.status for answer in answered}
    served = {str(answer.json["cursor"]).partition("-")[0] for answer in answered}
    assert (2, 1) == (len(served), len(served & epochs))


async def test_a_worker_that_another_process_signals_drains_and_is_replaced(start: Start) -> None:
    """SIGTERM of one worker is a goodbye to its subscribers, and its successor does not wait for that to end."""
    running = await start()
    streams = await running.streams()
    os.kill(running.workers[1], signal.SIGTERM)
    await running.logged(r"worker 2 \(process \d+\) drains; its successor starts ")
    ends = {asyncio.create_task(peer.all()) for peer in streams.values()}
    done, others = await asyncio.wait(ends, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert [STREAM_END] == [task.result() for task in done]
    assert 1 == len(await running.epochs(2) & set(streams))
    assert 0 == (await running.metrics())["worker_restarts_total"]
    for task in others:
        task.cancel()


@pytest.mark.parametrize(
    "lived, pause, served, expected",
    [
        (1.9, 0.0, False, 0.1),
        (0.0, 0.1, False, 0.2),
        (1.0, 3.0, False, 5.0),
        (1.0, 5.0, False, 5.0),
        (2.0, 5.0, False, 0.0),
        (1.9, 0.0, True, 0.1),
        (1.9, 0.2, True, 0.4),
        (1.9, 0.4, True, 0.5),
        (2.0, 0.5, True, 0.0),
    ],
)
def test_the_pause_before_a_successor(lived: float, pause: float, served: bool, expected: float) -> None:
    """The pause doubles for workers that die young, up to a bound that is lower where clients wait to be served."""
    assert expected == pause_after(lived, pause, served=served)


@pytest.mark.parametrize(
    "status, expected",
    [
        (3, "ended with exit status 3"),
        (-9, "was ended by SIGKILL"),
        (-40, "was ended by signal 40"),
    ],
)
def test_how_a_process_ended_is_said_in_words(status: int, expected: str) -> None:
    """By its exit status, or by the signal that ended it."""
    assert expected == module._ended(status)


async def test_successors_that_die_young_are_tried_again(start: Start) -> None:
    """As long as a worker can't begin, the other serves, and the pauses grow; then all is as before."""
    running = await start()
    running.obstacle.touch()
    os.kill(running.workers[0], signal.SIGKILL)
    await running.logged("was ended by SIGKILL; its successor starts ")
    pauses = []
    for _ in range(3):  # the first depends on how long the dead worker has lived, on a slow machine
        found = re.search(r"in ([\d.]+) s$", await running.logged("ended with exit status 3; its successor starts"))
        assert found is not None
        pauses.append(float(found[1]))
    assert [pauses[0], 2 * pauses[0], 4 * pauses[0]] == pauses
    assert 1 == (await running.of_any(running.metrics))["workers"]
    running.obstacle.unlink()
    assert 2 == len(await running.epochs(2))


# -- the end


def log_of_a_stop(running: Running, number: signal.Signals, again: str = "") -> list[str]:
    """Return the lines, without times, of a server that a signal has stopped, and perhaps a second one."""
    lines = [f"stopping: {number.name} was received", *([f"stopping now: {again} was received"] if again else [])]
    return [f"INFO oncecast.server: {line}" for line in [*lines, f"stopped: pid {running.process.pid}"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_of_them(start: Start, number: signal.Signals) -> None:
    """Every subscriber of every worker hears of it, nobody can connect any more, and the end is clean."""
    running = await start()
    workers, streams = running.workers, await running.streams()
    running.process.send_signal(number)
    for peer in streams.values():
        assert STREAM_END == await asyncio.wait_for(peer.all(), SECONDS)
    for peer in running.site.peers:
        peer.close()
    assert log_of_a_stop(running, number) == await running.rest()
    assert 0 == running.process.returncode
    with pytest.raises(ConnectionRefusedError):
        await running.site.connect()
    for pid in workers:
        await gone(pid)


async def test_ctrl_c_reaches_all_processes_of_a_terminal_and_is_heard_once(start: Start) -> None:
    """A worker leaves SIGINT to its supervisor, as a second signal would cut its connections off."""
    running = await start()
    streams = await running.streams()
    for pid in (running.process.pid, *running.workers):
        os.kill(pid, signal.SIGINT)
    for peer in streams.values():
        assert STREAM_END == await asyncio.wait_for(peer.all(), SECONDS)
        peer.close()
    assert log_of_a_stop(running, signal.SIGINT) == await running.rest()
    assert 0 == running.process.returncode


async def test_a_second_signal_cuts_off(start: Start) -> None:
    """A second signal cuts off those that do not leave."""
    running = await start()
    stays = await running.site.connect(b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
    leaves = await running.streams()
    running.process.send_signal(signal.SIGTERM)
    for peer in leaves.values():
        assert STREAM_END == await asyncio.wait_for(peer.all(), SECONDS)
    running.process.send_signal(signal.SIGTERM)
    assert b"" == await asyncio.wait_for(stays.all(), SECONDS / 2)
    assert log_of_a_stop(running, signal.SIGTERM, again="SIGTERM") == await running.rest()
    assert 0 == running.process.returncode


async def test_a_worker_that_is_stuck_is_killed_in_the_end(start: Start) -> None:
    """After the second signal the supervisor waits a few seconds for it and no longer; the log says which it was."""
    running = await start()
    other, stuck = running.workers
    os.kill(stuck, signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    await gone(other)  # so the first signal has been heard
    running.process.send_signal(signal.SIGTERM)
    first, second, last = log_of_a_stop(running, signal.SIGTERM, again="SIGTERM")
    killed = f"ERROR oncecast.server: process {stuck} does not end: it is killed"
    assert [first, second, killed, last] == await running.rest()
    assert 0 == running.process.returncode


async def test_workers_do_not_outlive_their_supervisor(start: Start) -> None:
    """When it is killed they say goodbye to their subscribers, and end; the port is free again."""
    running = await start()
    workers, streams = running.workers, await running.streams()
    running.process.kill()
    for peer in streams.values():
        assert STREAM_END == await asyncio.wait_for(peer.all(), SECONDS)
        peer.close()
    for pid in workers:
        await gone(pid)
    with pytest.raises(ConnectionRefusedError):
        await running.site.connect()


# -- new settings


async def test_sighup_hands_new_settings_to_every_worker(start: Start) -> None:
    """Connections stay. A setting that can't change is named, and a mistake changes nothing."""
    running = await start()
    streams = await running.streams()
    running.config.write_text(f"{BASE}port = 1\n[limits]\nmessage_bytes = 3\n")
    running.process.send_signal(signal.SIGHUP)
    await running.logged("these settings apply after a restart only: port$")
    await running.logged("the settings have been read again")
    post = b"POST /v1/channels/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\n1234"

    async def statuses() -> set[int]:
        return {(await running.ask(post)).status for _ in range(10)}

    while {413} != await statuses():
        pass
    running.config.write_text(f"{BASE}port = 0\n[limits]\nmessage_byte = 3\n")
    running.process.send_signal(signal.SIGHUP)
    await running.logged("the settings stay as they were: .*message_byte is not a setting; did you mean message_bytes")
    assert {413} == await statuses()
    assert [False, False] == [await _ends(peer) for peer in streams.values()]


# -- a rolling restart


async def test_a_rolling_restart_refuses_nobody(start: Start) -> None:
    """All workers are new processes after it; each subscriber was sent away, each connection answered."""
    running = await start()
    old_pids, streams = running.workers, await running.streams()
    rolled = asyncio.Event()
    answers: list[int] = []

    async def keep_asking() -> None:
        while not rolled.is_set():
            answers.append((await running.ask(POLL)).status)

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    running.process.send_signal(signal.SIGUSR2)
    await running.logged("rolling restart: 2 workers")
    running.process.send_signal(signal.SIGUSR2)
    await running.logged("a rolling restart can't begin now")
    for peer in streams.values():
        assert STREAM_END == await asyncio.wait_for(peer.all(), SECONDS)
    await running.logged("rolling restart: every worker is a new one")
    rolled.set()
    await asyncio.wait_for(asyncio.gather(*asking), SECONDS)
    assert {200} == set(answers)
    for peer in running.site.peers:
        peer.close()
    for pid in old_pids:
        await gone(pid)
    await until(lambda: set(old_pids).isdisjoint(running.workers))  # their exit status has been taken
    assert 2 == len(running.workers)
    assert set() == await running.epochs(2) & set(streams)
    assert 0 == (await running.metrics())["worker_restarts_total"]


async def test_a_rolling_restart_whose_successor_fails_is_given_up(start: Start) -> None:
    """The old workers serve on, and the log says so; when the fault is mended, the next one works."""
    running = await start()
    streams = await running.streams()
    running.obstacle.touch()
    running.process.send_signal(signal.SIGUSR2)
    await running.logged(
        "rolling restart given up at worker 1: its successor ended at its start. The old ones serve on"
    )
    assert set(streams) == await running.epochs(2)
    assert [False, False] == [await _ends(peer) for peer in streams.values()]
    running.obstacle.unlink()
    running.process.send_signal(signal.SIGUSR2)
    await running.logged("rolling restart: every worker is a new one")


async def test_counters_do_not_go_backwards_when_workers_are_replaced(start: Start) -> None:
    """The counts of a worker stay in the sums after its end."""
    running = await start()
    for _ in range(6):
        await running.ask(
            b"POST /v1/channels/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"
        )
    old = running.workers
    running.process.send_signal(signal.SIGUSR2)
    await running.logged("rolling restart: every worker is a new one")
    for peer in running.site.peers:
        peer.close()
    for pid in old:
        await gone(pid)
    found: dict[str, float] = {}
    while found.get("publishes_total") != 6:  # the supervisor hears of the end a moment later
        found = await running.metrics()
    assert 0 == found["log_messages"]


# -- a start that fails


async def test_workers_that_cant_begin_end_the_start(tmp_path: Path, start: Start) -> None:
    """At the first start a fault is the operator's to mend: it is said in one line, and nothing is tried again."""
    (tmp_path / "obstacle").touch()
    with pytest.raises(AssertionError, match=r"ConfigurationError: no worker could start"):
        await start()


# -- without processes


class FakeChild:
    """A child that does what the test says: `room` processes can be started, and if `slow` they serve later.

    If `busy` it does not say that it accepts no more.
    """

    room = 0
    slow = busy = False
    started: list[FakeChild]

    def __init__(self) -> None:
        self.state = WorkerState.SERVING
        self.served = True
        self.decided = asyncio.Event()
        if not self.slow:
            self.decided.set()
        self.began = 0.0
        self.pid = 1
        self.failure = None
        self.measures = Measures()
        self.ended = asyncio.Event()
        self.left = asyncio.Event()
        self.sent: list[object] = []
        self.stuck = self.killed = False

    @classmethod
    async def start(cls, *arguments: object) -> FakeChild:
        """Return a new one. Raises `OSError`."""
        if cls.room == 0:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        cls.room -= 1
        cls.started.append(cls())
        return cls.started[-1]

    async def run(self) -> int:
        """End at `stop`."""
        await self.ended.wait()
        self.state = WorkerState.ENDED
        return 1

    def tell(self, message: object) -> None:
        """Note it."""
        self.sent.append(message)

    def stop(self) -> None:
        """End."""
        self.state = WorkerState.LEAVING
        if not self.busy:
            self.left.set()
        self.ended.set()

    async def measure(self) -> Measures | None:
        """Answer, unless it is `stuck`."""
        return None if self.stuck else self.measures

    def kill(self) -> None:
        """End, however stuck it is."""
        self.killed = True
        self.ended.set()


@pytest_asyncio.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """A supervisor of one slot whose worker is fake."""
    FakeChild.started, FakeChild.room = [], 1
    monkeypatch.setattr(module, "Child", FakeChild)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    supervisor = Supervisor(Settings(), [[]], Settings)
    await supervisor.start()
    yield supervisor
    await asyncio.wait_for(supervisor.stop(asyncio.Event()), SECONDS)
    assert all(child.ended.is_set() for child in FakeChild.started)


async def test_no_room_for_a_successor(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    """Where the system has no process to give, it is asked again and again, and the log says so."""
    FakeChild.started[0].ended.set()
    await until(lambda: caplog.text.count("worker 1 can't be started: [Errno 11]") >= 3)
    FakeChild.room = 1
    await until(lambda: len(FakeChild.started) == 2)
    supervisor.on_leaving(FakeChild.started[0])  # type: ignore[arg-type]  # one that has a successor needs none
    await asyncio.sleep(0)
    assert 2 == len(FakeChild.started)


@pytest.mark.parametrize("serves", [True, False])
async def test_one_that_dies_before_the_others_have_begun_is_replaced(
    monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    """At the first start only workers of which none could serve are a reason to give up."""
    FakeChild.started, FakeChild.room = [], 3
    monkeypatch.setattr(module, "Child", FakeChild)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    supervisor = Supervisor(Settings(), [[], []], Settings)
    monkeypatch.setattr(FakeChild, "slow", True)
    starting = asyncio.create_task(supervisor.start())
    await until(lambda: len(FakeChild.started) == 2)
    dies, slow = FakeChild.started
    dies.served = serves
    dies.decided.set()
    dies.ended.set()
    if serves:
        await until(lambda: len(FakeChild.started) == 3)
        assert not starting.done()
    slow.decided.set()
    await asyncio.wait_for(starting, SECONDS)
    await until(lambda: len(FakeChild.started) == 3)
    assert SupervisorPhase.SERVING is supervisor.phase
    await supervisor.stop(asyncio.Event())


async def test_more_that_drain_than_there_are_slots_share_the_pace(supervisor: Supervisor) -> None:
    """A second restart, or the end, comes while earlier workers still let go: each has its part of the rate."""
    FakeChild.room = 2
    slot = supervisor._slots[0]
    first, second, third = FakeChild.started[0], *[await supervisor._start(slot) for _ in range(2)]
    for leaving in (first, second, third):
        leaving.state = WorkerState.LEAVING
        supervisor._share_rate()
    assert [Pace(2), Pace(3)] == first.sent
    assert [Pace(3)] == third.sent  # type: ignore[attr-defined]
    first.ended.set()
    await until(lambda: len(first.sent) == 2 and Pace(2) in third.sent)  # type: ignore[attr-defined]
    third.ended.set()
    await until(lambda: Pace(1) in second.sent)  # type: ignore[attr-defined]
    second.ended.set()


async def test_no_room_for_a_rolling_restart(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    """No worker is replaced."""
    supervisor.roll()
    await until(lambda: "rolling restart given up at worker 1: [Errno 11]" in caplog.text)
    assert [WorkerState.SERVING] == [child.state for child in FakeChild.started]


async def test_a_rolling_restart_ends_once_the_last_old_worker_accepts_no_more(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The line that every worker is a new one comes after the old one has said so."""
    caplog.set_level("INFO")
    monkeypatch.setattr(FakeChild, "busy", True)
    FakeChild.room = 1
    supervisor.roll()
    await until(lambda: FakeChild.started[0].state is WorkerState.ENDED)
    assert "every worker is a new one" not in caplog.text
    FakeChild.started[0].left.set()
    await until(lambda: "every worker is a new one" in caplog.text)
    assert "may still accept" not in caplog.text


async def test_a_rolling_restart_does_not_wait_for_ever_for_a_worker_that_is_stuck(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the process that may still accept connections, and the restart ends."""
    caplog.set_level("INFO")
    monkeypatch.setattr(FakeChild, "busy", True)
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.01)
    FakeChild.room = 1
    supervisor.roll()
    await until(lambda: "every worker is a new one" in caplog.text)
    assert "process 1 was asked to stop 0.01 seconds ago, does not answer, and may still accept" in caplog.text


@pytest.mark.parametrize("begins", ["start", "refill", "roll"])
async def test_a_stop_while_a_worker_is_started_is_no_error(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begins: str
) -> None:
    """The sockets are closed by then, so no process can be given them; the log has nothing of it."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def start(*arguments: object) -> FakeChild:
        begun.set()
        await stopped.wait()
        raise OSError(errno.ENOTSOCK, "the listening sockets were closed")

    monkeypatch.setattr(FakeChild, "start", start)
    if begins == "refill":
        FakeChild.started[0].ended.set()
    elif begins == "roll":
        supervisor.roll()
    starting = asyncio.create_task(supervisor.start()) if begins == "start" else None
    await asyncio.wait_for(begun.wait(), SECONDS)
    caplog.clear()
    stopping = asyncio.create_task(supervisor.stop(asyncio.Event()))
    await until(lambda: supervisor.phase is SupervisorPhase.STOPPING)
    stopped.set()
    await asyncio.wait_for(stopping, SECONDS)
    if starting is not None:
        await asyncio.wait_for(starting, SECONDS)
    assert (None, "") == (supervisor.failed, caplog.text)


async def test_a_successor_that_a_rolling_restart_was_faster_than(supervisor: Supervisor) -> None:
    """Of two that come for the same slot, the second one goes again."""
    FakeChild.room = 1
    slot = supervisor._slots[0]
    late = await supervisor._start(slot)
    supervisor._place(slot, late)
    assert [WorkerState.SERVING, WorkerState.LEAVING] == [child.state for child in FakeChild.started]


async def test_a_worker_that_answers_nothing_is_replaced(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer among the misses is enough; `MISSED` in a row end a worker whose loop is stuck."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)
    FakeChild.room = 2
    supervisor.on_leaving(FakeChild.started[0])  # type: ignore[arg-type]
    await until(lambda: len(FakeChild.started) == 2)
    checked = FakeChild.started[1]
    asked: list[bool] = []

    async def measure() -> Measures | None:
        asked.append(len(asked) % module.MISSED == 0)
        return Measures() if asked[-1] else None

    monkeypatch.setattr(checked, "measure", measure)
    await until(lambda: len(asked) > 3 * module.MISSED)
    assert not checked.killed
    monkeypatch.undo()
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(module, "Child", FakeChild)
    checked.stuck = True
    await until(lambda: checked.killed and len(FakeChild.started) == 3)
    assert "has not answered for" in caplog.text


async def test_a_task_that_fails_fails_the_supervisor(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that nobody watches are no state to go on in: the process is to end, and to be started again."""
    failures: list[str] = []
    supervisor.on_failure = failures.append

    async def fail(slot: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(supervisor, "_refill", fail)
    FakeChild.started[0].ended.set()
    await until(lambda: bool(failures))
    assert [supervisor.failed] == failures
    assert "ZeroDivisionError: a defect" in failures[0]
    assert "Traceback" in caplog.text
    supervisor.phase = SupervisorPhase.STOPPING
    supervisor._fail("another")
    assert 1 == len(failures)


async def test_metrics_that_cant_be_collected_harm_nothing_else(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that asked answers with its own; the next one is answered by the supervisor again."""
    child = FakeChild.started[0]

    async def fail() -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(child, "measure", fail)
        supervisor.on_asked(child)  # type: ignore[arg-type]
        supervisor.on_asked(child)  # type: ignore[arg-type]
        await until(lambda: "the metrics could not be collected" in caplog.text)
    assert ([], None) == (child.sent, supervisor.failed)
    supervisor.on_asked(child)  # type: ignore[arg-type]
    await until(lambda: [Total] == [type(message) for message in child.sent])


LIMITED = b"""GET /v1/channels/a HTTP/1.1\r
Host: localhost\r
Accept: text/event-stream\r
X-Forwarded-For: 192.0.2.1\r
\r
"""


async def test_limits_hold_for_all_workers_and_outlive_none(start: Start) -> None:
    """A client has as many streams on all workers as on one, and what killed workers have counted is gone."""
    running = await start('trusted_proxies = ["127.0.0.1"]\n[limits]\nconnections_per_address = 2\n')

    async def opens() -> tuple[bool, Any]:
        peer = await running.site.connect(LIMITED)
        line = await asyncio.wait_for(peer.reader.readline(), SECONDS)
        assert line in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 429 Too Many Requests\r\n")
        return b"200" in line, peer

    assert [True, True] + [False] * 12 == [(await opens())[0] for _ in range(14)]  # by chance on both workers
    old = running.workers
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(set(running.workers) - set(old)) == 2)
    for _ in range(2):
        await running.logged("ended|was ended by SIGKILL")
    assert [True, True, False] == [(await opens())[0] for _ in range(3)]
