"""This machine's metrics once a second, in charts that begin with the past minutes.

The channel's log is the history: a page that joins asks for the last messages, draws them, and goes on with the next.
Linux only: the numbers come from /proc.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("DASHBOARD_SECONDS", "1"))  # between two samples
NOT_NETWORK = ("lo", "ifb", "docker", "br-", "veth", "virbr")  # this machine with itself, and what is counted twice

cast = Oncecast(subscribe="public")  # clients listen; only this process publishes


def lines(file: str) -> list[list[str]]:
    """Return the words of each line of a file of /proc."""
    return [line.replace(":", " ").split() for line in Path("/proc", file).read_text().splitlines()]


def counters() -> dict[str, list[int]]:
    """Read what only grows: jiffies of all cores and of each, and bytes of networks and disks."""
    nets = [words for words in lines("net/dev")[2:] if not words[0].startswith(NOT_NETWORK)]
    disks = [words for words in lines("diskstats") if Path("/sys/block", words[2], "device").exists()]
    return {  # a sector has 512 bytes here, whatever the disk has
        **{words[0]: [int(word) for word in words[1:9]] for words in lines("stat") if words[0].startswith("cpu")},
        "network": [sum(int(words[1]) for words in nets), sum(int(words[9]) for words in nets)],
        "disk": [512 * sum(int(words[5]) for words in disks), 512 * sum(int(words[9]) for words in disks)],
    }


def sample(grown: dict[str, list[int]], seconds: float) -> dict[str, Any]:
    """Return what the page draws: percentages, bytes, and bytes a second. `grown` is how much the counters grew."""
    size = {words[0]: 1024 * int(words[1]) for words in lines("meminfo")}
    cores = [[100 * part / max(1, sum(core)) for part in core] for name, core in grown.items() if name[:3] == "cpu"]
    user, nice, system, _, wait, *interrupts = cores[0]
    return {
        "cpu": [round(user + nice, 1), round(system + sum(interrupts), 1), round(wait, 1)],
        "cores": [round(sum(core) - core[3] - core[4]) for core in cores[1:]],  # without idling and waiting
        "memory": [size["MemTotal"] - size["MemAvailable"], size["MemAvailable"] - size["MemFree"], size["MemTotal"]],
        **{name: [round(count / seconds) for count in grown[name]] for name in ("network", "disk")},
        "load": os.getloadavg(),
    }


async def measure() -> None:
    """Publish how much the counters have grown since the last time, again and again."""
    now, time = counters(), monotonic()
    while True:
        await asyncio.sleep(SECONDS)
        before, now, then, time = now, counters(), time, monotonic()
        grown = {name: [b - a for a, b in zip(before.get(name, now[name]), now[name], strict=True)] for name in now}
        await cast.publish("machine", sample(grown, time - then))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Measure for as long as the application lives."""
    async with cast, asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(measure())
        yield
        measuring.cancel()


shared, page = StaticFiles(directory=HERE.parent / "shared"), StaticFiles(directory=HERE / "page", html=True)
app = Starlette(routes=[Mount("/rt", cast), Mount("/shared", shared), Mount("/", page)], lifespan=lifespan)
