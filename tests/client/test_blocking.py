"""`Client`: the blocking face, from threads, from forked processes, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oncecast import (
    Ack,
    BlockingMessages,
    Broken,
    Client,
    Gap,
    GapError,
    OncecastError,
    Outgoing,
    Refused,
    StateChanged,
    SubscriptionEnded,
    UsageError,
)
from oncecast.client.blocking import _after_fork
from oncecast.server.server import Server
from oncecast.server.settings import Settings

SECONDS = 20.0


@pytest.fixture
def url() -> Iterator[str]:
    """A real server, on a thread with a loop of its own; its URL."""
    ready, ports = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = Server(Settings(port=0))
        await server.start()
        ports.append(server.port)
        ready.set()
        await stop.wait()
        await server.stop(0.1)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(SECONDS)
    yield f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(SECONDS)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_publish_and_subscribe(url: str) -> None:
    """The same names, blocking; the iteration ends when the client is closed."""
    with Client(url) as client:
        assert "websocket" == client.transport
        with client.subscribe("a", "b") as messages:
            acks = [client.publish("a", {"t": 1}), client.publish("b", "x", event="e", key="k")]
            assert ("a", "b") == messages.channels
            first = next(messages)
            assert ({"t": 1}, acks[0].id) == (first.data, messages.cursors["a"])
            assert acks[1] == client.publish("b", "x", key="k")
            assert ["x"] == [messages.receive(timeout=SECONDS).data]
            with pytest.raises(TimeoutError):
                messages.receive(timeout=0.01)
            client.publish("a", 3)
            assert 3 == messages.receive(timeout=SECONDS).data
            cursors = messages.cursors
        assert [] == list(messages)
        later = client.subscribe("a", after=cursors["a"])
    assert [] == list(later)
    assert cursors.keys() == cursors.keys() | messages.cursors.keys()
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.publish("a", 1)


def test_cursors_stand_before_what_waits(url: str) -> None:
    """A stored cursor never skips what was fetched but not handed out."""
    with Client(url) as client:
        acks = [client.publish("a", n) for n in range(5)]
        with client.subscribe("a", after=acks[0].id) as messages:
            assert {"a": acks[0].id} == messages.cursors
            assert 1 == next(messages).data
            assert {"a": acks[1].id} == messages.cursors
            assert [2, 3, 4] == [next(messages).data for _ in range(3)]
            assert {"a": acks[4].id} == messages.cursors


def test_a_subscription_keeps_its_client(url: str) -> None:
    """A subscription goes on where nothing else refers to its client, and the thread ends with the subscription."""
    with Client(url) as client:
        client.publish("a", 1)
    messages = Client(url).subscribe("a", after="earliest")
    gc.collect()
    assert 1 == messages.receive(SECONDS).data
    thread = messages._engine._thread
    del messages
    gc.collect()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_gaps_and_notices(url: str) -> None:
    """Gaps are called back by the thread that iterates, and stand among the events."""
    states: list[StateChanged] = []
    with Client(url) as client:
        client.on("state", states.append)
        client.publish("a", 1)
        gaps: list[tuple[Gap, int]] = []
        messages = client.subscribe("a", after="old-1")
        messages.on_gap = lambda gap: gaps.append((gap, threading.get_ident()))
        assert 1 == next(messages).data
        assert [("epoch", threading.get_ident())] == [(gap.reason, thread) for gap, thread in gaps]
        events = client.subscribe("a", after="old-1").events()
        assert [Gap, int] == [type(item) if isinstance(item, Gap) else type(item.data) for item in [*_two(events)]]
    assert [] == list(events)
    assert "listening" in [state.after.value for state in states]


def _two(events: Iterator[Any]) -> list[Any]:
    return [next(events), next(events)]


def test_a_refusal_is_raised(url: str) -> None:
    """A final refusal of the server is raised out of the iteration."""
    with Client(url) as client, pytest.raises(Refused):
        next(client.subscribe("a", after="malformed"))


def test_mistakes_are_raised_where_they_are_made() -> None:
    """Options are checked when the client is made, and no thread is started for it."""
    before = threading.active_count()
    with pytest.raises(UsageError):
        Client("http://h", transports=("pigeon",))
    Client("http://h")
    assert before == threading.active_count()


def test_a_callback_can_not_call_the_client(url: str) -> None:
    """The call raises, as it would wait for itself."""
    errors: list[Exception] = []
    with Client(url) as client:

        def callback(notice: StateChanged) -> None:
            try:
                client.publish("a", 1)
            except UsageError as error:
                errors.append(error)

        client.on("state", callback)
        with client.subscribe("a"):
            pass
    assert "hand the work to another thread" in str(errors[0])


def test_threads(url: str) -> None:
    """Many threads publish and many iterate over one subscription: each message goes to one of them, once."""
    publishers, each, readers = 8, 25, 4
    total = publishers * each
    got: list[int] = []
    done = threading.Event()
    with Client(url) as client, client.subscribe("a") as messages, ThreadPoolExecutor(publishers + readers) as pool:

        def read() -> None:
            for message in messages:
                got.append(message.data)
                if len(got) == total:
                    done.set()

        reading = [pool.submit(read) for _ in range(readers)]
        acks = list(pool.map(lambda n: [client.publish("a", n * each + i).id for i in range(each)], range(publishers)))
        assert done.wait(SECONDS)
        messages.close()
        for reader in reading:
            reader.result(SECONDS)
    assert list(range(total)) == sorted(got)
    assert total == len({ack for ids in acks for ack in ids})


def _in_child(work: Any) -> bytes:
    """Fork, do the work there, and return what it wrote."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(into, repr(work()).encode())
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            os.write(into, repr(error).encode())
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as pipe:
        written = pipe.read()
    os.waitpid(pid, 0)
    return written


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork(url: str) -> None:
    """A client that was made, and one that was used, before a fork works in the child; the parent's goes on."""
    fresh = Client(url)
    with Client(url) as used, used.subscribe("a") as messages:

        def work() -> tuple[Any, ...]:
            ids = (fresh.publish("a", 1).id != "", used.publish("a", 2).id != "")
            mine = next(used.subscribe("a", last=1)).data
            fresh.close()
            used.close()
            return (*ids, mine, list(messages))

        assert b"(True, True, 2, [])" == _in_child(work)
        assert [1, 2] == [messages.receive(SECONDS).data for _ in range(2)]
        used.publish("a", 3)
        assert 3 == messages.receive(SECONDS).data


def test_the_hook_of_a_fork_keeps_the_callbacks(url: str) -> None:
    """The client of a child tells the same listeners."""
    states: list[StateChanged] = []
    with Client(url) as client:
        client.on("state", states.append)
        engine = client._running()
        _after_fork()
        with client.subscribe("a"):
            assert [] != states
        engine.stop()


SCRIPT = """
import sys
from oncecast import Client
with Client(sys.argv[1]) as client, client.subscribe("a") as messages:
    print("ready", flush=True)
    try:
        for message in messages:
            print(message.data, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        client.publish("a", "after")
        print(next(messages).data, flush=True)
print("end", flush=True)
"""


def test_ctrl_c(url: str) -> None:
    """Ctrl-C interrupts an iteration that waits, and what comes after it is not lost."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        with Client(url) as client:
            client.publish("a", "before")
        assert "before\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert ["interrupted\n", "after\n", "end\n"] == process.stdout.readlines()
        assert 0 == process.wait(SECONDS)


LATE = """
import signal, sys, threading
from oncecast import Client
with Client(sys.argv[1]) as client, client.subscribe("a") as messages:
    try:
        threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
        next(messages)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_that_does_not_wake_the_wait(url: str) -> None:
    """A signal that another thread gets, or that comes just before the wait, interrupts it all the same."""
    with subprocess.Popen([sys.executable, "-c", LATE, url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "interrupted\n" == process.communicate(timeout=SECONDS)[0]
        finally:
            process.kill()


def test_a_script_may_forget_to_close(url: str) -> None:
    """A process that ends without closing its client ends."""
    script = "import sys; from oncecast import Client; c = Client(sys.argv[1]); print(c.publish('a', 1).durability)"
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, timeout=SECONDS)
    assert ("memory\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_closing_ends_what_waits() -> None:
    """A publish that is on its way when the client is closed says so; after that there is no loop to hand it to."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}")
        publishing = pool.submit(client.publish, "a", 1)
        connection, _ = silent.accept()
        engine = client._running()
        client.close()
        with pytest.raises(Broken, match="the client was closed"):
            publishing.result(SECONDS)
        with pytest.raises(Broken, match="the client was closed"):
            engine.call(asyncio.sleep(0))
        connection.close()


CALL = """
import sys
from oncecast import Client
with Client(sys.argv[1]) as client:
    try:
        client.publish("a", 1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_in_a_call() -> None:
    """Ctrl-C cancels a call that waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen([sys.executable, "-c", CALL, url], stdout=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            assert "interrupted\n" == process.communicate(timeout=SECONDS)[0]
            connection.close()


def test_a_timeout_beside_another_thread(url: str) -> None:
    """A thread that iterates without a limit does not keep `receive(timeout)` of another from its own."""
    with Client(url) as client, client.subscribe("a") as messages, ThreadPoolExecutor(1) as pool:
        iterating = pool.submit(next, messages)
        for timeout in (0.2, 0):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                messages.receive(timeout)
            assert timeout <= time.monotonic() - began < timeout + 2
        client.publish("a", 1)
        assert 1 == iterating.result(SECONDS).data
        client.publish("a", 2)
        assert 2 == messages.receive(SECONDS).data


@pytest.mark.parametrize("fetch_under_way", [False, True])
def test_receive_with_no_time_has_what_has_arrived(url: str, fetch_under_way: bool) -> None:
    """With a timeout of 0 each message that has arrived is returned, and then a TimeoutError, not by luck."""
    with Client(url) as client:
        for _ in range(20):
            messages = client.subscribe("a")
            with messages:
                if fetch_under_way:
                    with pytest.raises(TimeoutError):
                        messages.receive(0.01)
                for number in range(3):
                    client.publish("a", number)
                while len(messages._inbox.items) + len(messages._messages._feed._items) < 3:
                    time.sleep(0.001)
                assert [0, 1, 2] == [messages.receive(0).data for _ in range(3)]
                with pytest.raises(TimeoutError):
                    messages.receive(0)


def test_the_end_is_an_exception_of_its_own(url: str) -> None:
    """`receive` inside a generator ends with a typed error, which is no StopIteration and no RuntimeError."""

    def generator(messages: BlockingMessages) -> Iterator[object]:
        while True:
            yield messages.receive().data

    with Client(url) as client:
        messages = client.subscribe("a", after="earliest")
        client.publish("a", 1)
        data = generator(messages)
        assert 1 == next(data)
        messages.close()
        with pytest.raises(SubscriptionEnded, match="the subscription was closed"):
            next(data)
        with pytest.raises(SubscriptionEnded):
            messages.receive(0)
        assert [] == list(messages)
    for timeout in (None, 0, 1):
        with pytest.raises(SubscriptionEnded):
            messages.receive(timeout)
    messages.close()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_absurd_timeouts(url: str, timeout: Any) -> None:
    """An absurd timeout raises a `UsageError`."""
    with Client(url) as client, pytest.raises(UsageError, match="timeout: give seconds"):
        client.subscribe("a").receive(timeout)


def test_closing_ends_a_thread_that_waits(url: str) -> None:
    """A thread that iterates sees the end when the subscription, or the client, is closed by another."""
    with ThreadPoolExecutor(2) as pool:
        client = Client(url)
        first, second = client.subscribe("a"), client.subscribe("a")
        iterating = [pool.submit(list, messages) for messages in (first, second)]
        first.close()
        assert [] == iterating[0].result(SECONDS)
        client.close()
        assert [] == iterating[1].result(SECONDS)


def test_a_gap_is_no_silence(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An iteration warns of it, raises it where that is asked for, and counts it; `receive` does the same."""
    with Client(url) as client:
        client.publish("a", 1)
        messages = client.subscribe("a", after="old-1")
        assert 1 == messages.receive(SECONDS).data
        assert ["WARNING"] == [record.levelname for record in caplog.records]
        assert 1 == messages.gap_count
        assert messages.last_gap is not None
        assert "epoch" == messages.last_gap.reason
        strict = client.subscribe("a", after="old-1", on_gap="raise")
        assert "raise" == strict.on_gap
        with pytest.raises(GapError):
            next(strict)
        assert 1 == next(strict).data
        off = client.on("gap", lambda gap: None)
        assert 1 == next(client.subscribe("a", after="old-1")).data
        off()
        off()
        assert ["WARNING"] == [record.levelname for record in caplog.records]


def test_events_go_on_after_an_exception(url: str) -> None:
    """The iterator is no generator: what interrupts a wait does not end it."""
    with Client(url) as client:
        events = client.subscribe("a", after="earliest").events()
        client.close()
        assert [[], []] == [list(events), list(events)]
        assert iter(events) is events


def test_many_messages_and_history(url: str) -> None:
    """The same calls, blocking; messages of a generator are taken by the caller's thread."""
    threads = set()

    def messages() -> Iterator[Outgoing]:
        for number in range(2000):
            threads.add(threading.get_ident())
            yield Outgoing("a", number)

    with Client(url) as client:
        outcomes = client.publish_many(messages())
        assert {Ack} == {type(outcome) for outcome in outcomes}
        found = client.history("a", limit=2000)
    assert list(range(2000)) == [message.data for message in found.messages]
    assert {threading.get_ident()} == threads


def test_a_thread_that_has_failed_is_replaced(url: str) -> None:
    """The next call starts another one; a subscription of the failed one is at its end."""
    states: list[StateChanged] = []
    with Client(url) as client:
        client.on("state", states.append)
        messages = client.subscribe("a")
        engine = client._running()
        engine.stop()
        assert [] == list(messages)
        states.clear()
        assert client.publish("a", 1).id
        assert 1 == client.subscribe("a", last=1).receive(SECONDS).data
        assert [] != states
        assert engine is not client._running()


def test_nothing_is_left_after_the_close(url: str) -> None:
    """No thread of the client or of its token function is left."""
    before = set(threading.enumerate())
    with Client(url, get_token=lambda: "t") as client, client.subscribe("a"):
        client.publish("a", 1)
    assert before == set(threading.enumerate())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_while_another_thread_holds_the_lock(url: str) -> None:
    """A child does not wait for a lock that a thread of its parent held."""
    with Client(url) as client, client.subscribe("a") as messages, messages._lock:
        assert b"'SubscriptionEnded'" == _in_child(lambda: _end_of(messages))


def _end_of(messages: BlockingMessages) -> str:
    try:
        messages.receive(1)
    except OncecastError as error:
        return type(error).__name__
    return ""
