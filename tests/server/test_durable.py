"""A server on a file, as a process: what a restart keeps, an older copy put back, a full disk, a file that is gone.

`tests/proof/test_crashes.py` has what happens under load.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import time
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oncecast import AsyncClient

from ..proof.deployment import Deployment

SECONDS = 60.0


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Deployment]:
    """A server of one process."""
    async with Deployment(tmp_path, workers=1) as deployment:
        yield deployment


async def publish(server: Deployment, *texts: str) -> list[str]:
    """Publish texts, and return their ids."""
    answers = [await asyncio.to_thread(server.ask, "POST", "a", text) for text in texts]
    assert [201] * len(texts) == [status for status, _ in answers]
    return [answer["id"] for _, answer in answers]


async def poll(server: Deployment, after: str) -> dict[str, Any]:
    """Poll channel `a`."""
    status, answer = await asyncio.to_thread(server.ask, "GET", f"a?after={after}")
    assert 200 == status
    found: dict[str, Any] = answer
    return found


def texts(answer: dict[str, Any]) -> list[Any]:
    """The data of an answer's messages."""
    return [message["data"] for message in answer["messages"]]


async def test_a_restart_keeps_messages_cursors_and_keys(server: Deployment) -> None:
    """After a stop and after a SIGKILL: what was there is there, an old cursor goes on, a repeated key adds nothing."""
    first, second = await publish(server, "one", "two")
    _, receipt = await asyncio.to_thread(lambda: server.ask("POST", "a", "keyed", **{"Idempotency-Key": "k"}))
    assert 0 == await server.stop()
    await server.start()
    await server.kill_all()
    await server.start()
    answer = await poll(server, first)
    assert (["two", "keyed"], None) == (texts(answer), answer["gap"])
    assert second == answer["messages"][0]["id"]
    again = await asyncio.to_thread(lambda: server.ask("POST", "a", "keyed", **{"Idempotency-Key": "k"}))
    assert (201, receipt) == again
    (third,) = await publish(server, "three")
    assert ["three"] == texts(await poll(server, receipt["id"]))
    assert third == (await poll(server, second))["cursor"]


@pytest.mark.parametrize("left", [False, True])
async def test_an_older_copy_put_back_is_a_gap(server: Deployment, tmp_path: Path, left: bool) -> None:
    """Every cursor beyond the copy gets a gap and then what is new, never a message that took its number.

    Also if what belongs to the newer file is left beside it.
    """
    kept = await publish(server, "one", "two")
    await server.stop()
    copy = tmp_path / "copy.db"
    shutil.copy(server.file, copy)
    await server.start()
    lost = await publish(server, "lost 1", "lost 2", "lost 3")
    await server.kill_all()
    for suffix in () if left else ("-wal", "-shm"):
        server.file.with_name(server.file.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, server.file)
    await server.start()
    assert left == ("set aside" in server.log)
    for published in ([], ["new 1"], ["new 2", "new 3", "new 4"]):
        await publish(server, *published)
        new = texts(await poll(server, kept[1]))
        for cursor in lost:
            answer = await poll(server, cursor)
            assert ("unknown", cursor) == (answer["gap"]["reason"], answer["gap"]["missed_to"])
            assert new == texts(answer)
    assert (["two", "new 1", "new 2", "new 3", "new 4"], None) == (
        texts(answer := await poll(server, kept[0])),
        answer["gap"],
    )


async def test_a_full_disk_heals(server: Deployment) -> None:
    """Publishes get 503 with `Retry-After`, listeners stay connected, and with room again publishes are taken."""
    async with (
        AsyncClient(server.url, transports=["sse"]) as client,
        client.subscribe("a") as messages,
    ):
        await publish(server, "before")
        free = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        # No file may grow beyond what the log has now: to a process that is a full disk.
        wal = server.file.with_name(server.file.name + "-wal")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, free[1]))
        status, answer = await asyncio.to_thread(server.ask, "POST", "a", "x" * 100_000)
        assert (503, "unavailable") == (status, answer["error"]["code"])
        assert ["before"] == texts(await poll(server, "earliest"))
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, free)
        await publish(server, "after")
        received = [await asyncio.wait_for(anext(messages), SECONDS) for _ in range(2)]
        assert ["before", "after"] == [message.data for message in received]
    await server.says("can't be written to")
    await server.says("is written to again")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_file_that_is_removed_ends_the_server(tmp_path: Path, workers: int) -> None:
    """A server whose file was removed ends with status 1, and a worker is replaced, as appends could not be read."""
    async with Deployment(tmp_path, workers=workers) as server:
        await publish(server, "one")
        pids = server.workers
        server.file.unlink()
        if workers == 1:
            assert 1 == await server.ended()
        else:
            end = time.monotonic() + SECONDS
            while set(pids) & set(server.workers) or len(server.workers) < workers:
                assert time.monotonic() < end, f"{pids} are {server.workers} now, after:\n{server.log}"
                await asyncio.sleep(0.02)
            assert [] == texts(await poll(server, "earliest"))
        await server.says("the file was replaced or removed")


async def test_a_log_of_many_messages_is_replayed_from_any_place(tmp_path: Path) -> None:
    """Far behind what memory holds, from the beginning and from the middle, over a stream and a poll."""
    settings = {"retention__messages": 1_000_000, "retention__bytes": 65536}
    count = 5000
    async with Deployment(tmp_path, workers=1, settings=settings) as server, AsyncClient(server.url) as client:
        ids = []
        for start in range(0, count, 1000):
            batch = "".join(f'{{"channel": "a", "data": {n}}}\n' for n in range(start, start + 1000))
            ids += await asyncio.to_thread(_publish_lines, server, batch)
        for after, first in (("earliest", 0), (ids[0], 1), (ids[2499], 2500)):
            async with client.subscribe("a", after=after) as messages:
                seen = [(await asyncio.wait_for(anext(messages), SECONDS)).data for _ in range(first, count)]
            assert list(range(first, count)) == seen
        answer = await poll(server, ids[99])
        assert (list(range(100, 1100)), ids[1099]) == (texts(answer), answer["cursor"])


def _publish_lines(server: Deployment, lines: str) -> list[str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    try:
        connection.request("POST", "/v1/publish", lines)
        return [json.loads(line)["id"] for line in connection.getresponse().read().splitlines()]
    finally:
        connection.close()
