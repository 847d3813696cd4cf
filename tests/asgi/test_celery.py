"""A worker of Celery, which forks its children, publishes to a log that another process reads.

Its queue is a folder (kombu's `filesystem` transport), so no other server is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import celery
import pytest

from oncecast import Oncecast
from tests.asgi.conftest import SECONDS
from tests.docs_rig import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "in-your-app.md"
# What the page does not show: where the queue is, and a worker that has published before it forks.
WORKER = """
import queue_of_test
from celery.signals import worker_init
from shop import cast, tasks

tasks.conf.update(queue_of_test.CONF)

@worker_init.connect
def before_the_fork(**named):
    cast.publish_sync("orders", {"id": 0})
"""
OPTIONS = ("--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1", "--loglevel", "INFO")
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def queue(folder: Path) -> dict[str, Any]:
    """Return Celery's settings for a queue in a folder."""
    names = ("data_folder_in", "data_folder_out", "control_folder")
    places = {name: str(folder / ("control" if name == "control_folder" else "queue")) for name in names}
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    options = {**places, "polling_interval": 0.05}
    return {"broker_url": "filesystem://", "broker_transport_options": options}


@contextlib.asynccontextmanager
async def working(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """Run a worker with the files of the page. Yields it and its log."""
    found = blocks(PAGE)
    (folder / "app.py").write_text(next(block.text for block in found if block.mark == "app"))
    (folder / "shop.py").write_text(next(block.text for block in found if block.mark == "celery"))
    (folder / "queue_of_test.py").write_text(f"CONF = {queue(folder)!r}\n")
    (folder / "worker.py").write_text(WORKER)
    log = folder / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "celery", "--app", "worker:tasks", "worker", *OPTIONS, *QUIET),
            cwd=folder,
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(folder)},
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_task_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener hears the worker before its fork and each of its children once, and the worker ends at SIGTERM."""
    monkeypatch.chdir(tmp_path)
    shop = celery.Celery("shop")
    shop.conf.update(queue(tmp_path))
    cast = Oncecast(f"sqlite:///{tmp_path}/app.db")
    async with working(tmp_path) as (process, log), cast, cast.subscribe("orders", on_gap="raise") as messages:
        heard = []

        async def hear(count: int) -> None:
            async with asyncio.timeout(SECONDS):
                heard.extend([(await anext(messages)).data["id"] for _ in range(count)])

        try:
            await hear(1)
            for order in (1, 2, 2, 3):  # a child has one task and is replaced by another; one task comes twice
                shop.send_task("shop.announce", [{"id": order}])
            await hear(3)
            shop.send_task("shop.announce", [{"id": 4}])
            await hear(1)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SECONDS):
                assert 0 == await process.wait()
        except TimeoutError:
            pytest.fail(f"heard {heard}; the worker:\n{log.read_text()}")
        assert [0, [1, 2, 3], 4] == [heard[0], sorted(heard[1:4]), heard[4]]
        assert 5 == log.read_text().count("succeeded in")
    shop.close()
