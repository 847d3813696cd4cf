"""Publishing without a loop of one's own: from threads, from WSGI, from scripts, and after a fork."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import flask
import pytest

from oncecast import Oncecast, Refused, Unavailable, UsageError
from oncecast.asgi.running import Running
from oncecast.errors import ConfigurationError
from tests.asgi.conftest import SECONDS


async def test_a_thread_publishes_on_the_loop_of_the_application() -> None:
    """A thread uses the application's log. On the loop itself the call raises."""
    async with Oncecast("memory://") as cast, cast.subscribe("a") as messages:
        ack = await asyncio.to_thread(cast.publish_sync, "a", {"n": 1}, event="e", key="k")
        message = await anext(messages)
        assert (ack.id, {"n": 1}, "e") == (message.id, message.data, message.event)
        with pytest.raises(UsageError, match=r"await cast\.publish"):
            cast.publish_sync("a", 1)
        with pytest.raises(Refused):
            await asyncio.to_thread(cast.publish_sync, "no channel", 1)
        assert cast._life is not None
        cast._life.node.publish = lambda drafts, done: None  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="same key"):
            await asyncio.to_thread(cast.publish_sync, "a", 1, timeout=0.1)


async def stop(cast: Oncecast) -> None:
    """Stop it, from another loop."""
    await cast.stop()


def test_without_an_application_a_thread_has_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script and a WSGI application publish, from several threads at once, by one loop in a thread."""
    cast = Oncecast(f"sqlite:///{tmp_path}/app.db")
    app = flask.Flask("app")
    made: list[int] = []
    make = cast._make

    async def count(*, signals: bool) -> Running:
        made.append(1)
        return await make(signals=signals)

    monkeypatch.setattr(cast, "_make", count)

    @app.post("/orders")
    def orders() -> dict[str, str]:
        return {"id": cast.publish_sync("orders", {"from": "flask"}).id}

    ids: list[str] = []
    with app.test_client() as client:
        threads = [
            threading.Thread(target=lambda: ids.append(str(app.test_client().post("/orders").get_json()["id"])))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        ids.append(client.post("/orders").get_json()["id"])
    assert 5 == len(set(ids))
    assert 1 == len([thread for thread in threading.enumerate() if thread.name == "oncecast"])
    assert [1] == made
    asyncio.run(stop(cast))
    assert not [thread for thread in threading.enumerate() if thread.name == "oncecast"]

    async def read() -> int:
        async with Oncecast(f"sqlite:///{tmp_path}/app.db") as other:
            messages = other.subscribe("orders", after="earliest")
            return len([await anext(messages) for _ in range(5)])

    assert 5 == asyncio.run(read())


def test_a_broker_that_can_not_be_opened(tmp_path: Path) -> None:
    """The reason is raised, each time."""
    cast = Oncecast(f"sqlite:///{tmp_path}/missing/app.db")
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            cast.publish_sync("a", 1)
    asyncio.run(stop(cast))


def test_memory_without_an_application_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The log warns once, as no other process can hear messages of `memory://`."""
    cast = Oncecast("memory://")
    with caplog.at_level(logging.WARNING, "oncecast.asgi"):
        assert cast.publish_sync("a", 1).id.endswith("-1")
        assert cast.publish_sync("a", 1).id.endswith("-2")
    assert 1 == caplog.text.count("nobody can hear")
    asyncio.run(stop(cast))


FORKING = """
import os, sys
from oncecast import Oncecast
cast = Oncecast(sys.argv[1])
first = cast.publish_sync("a", 0)
children = []
for number in (1, 2):
    pid = os.fork()
    if not pid:
        cast.publish_sync("a", number)
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
cast.publish_sync("a", 3)
"""


def test_children_of_a_fork_publish_by_themselves(tmp_path: Path) -> None:
    """Parent and children publish to one file, after the parent has published, and the parent goes on."""
    broker = f"sqlite:///{tmp_path}/app.db"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, broker],  # Python 3.12 warns of forks
        timeout=SECONDS * 2,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)

    async def read() -> list[Any]:
        async with Oncecast(broker) as other:
            messages = other.subscribe("a", after="earliest")
            return sorted([(await anext(messages)).data for _ in range(4)])

    assert [0, 1, 2, 3] == asyncio.run(read())


def test_a_script_ends(tmp_path: Path) -> None:
    """A program that has published ends by itself, and quickly."""
    script = f"import oncecast; oncecast.Oncecast('sqlite:///{tmp_path}/app.db').publish_sync('a', 1)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], timeout=SECONDS, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert time.monotonic() - began < SECONDS / 2
