"""What a session asks of a server before it uses it: whether it keeps messages, and where its log stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ...errors import ConfigurationError, Refusal
from ..address import Address
from ..session import Lost
from . import scripts
from .faults import REPLICA, NoLog
from .line import RedisLine

OLDEST = (6, 2)
CHECK_SECONDS = 3.0  # so that what is wrong is on /readyz within 5 seconds


class RedisOpening(msgspec.Struct, frozen=True):
    """Where the log stands: the life that scripts name, its epoch, the last number given, its holes."""

    life: bytes
    epoch: str
    head: int
    holes: frozenset[tuple[int, int]]


async def check_server(line: RedisLine, address: Address) -> None:
    """Refuse a server that would lose messages by its settings, or is too old. Raises `ConfigurationError`.

    Raises `Lost` for a primary that was made a replica: it keeps its connections, and answers probes.
    """
    if (await line.command("ROLE"))[0] != b"master":
        raise Lost(REPLICA)
    version = _field(await line.command("INFO", "server"), b"redis_version")
    if tuple(int(part) for part in version.split(b".")[:2]) < OLDEST:
        raise ConfigurationError(f"broker: {address}: Redis {version.decode()} is too old: 6.2 is needed")
    memory = await line.command("INFO", "memory")
    policy = _field(memory, b"maxmemory_policy").decode()
    if policy != "noeviction" and _field(memory, b"maxmemory") not in (b"", b"0"):
        text = f"it evicts keys ({policy}), which would lose messages: set maxmemory-policy noeviction"
        raise ConfigurationError(f"broker: {address}: {text}")


async def check_on(line: RedisLine, address: Address) -> None:
    """Check from time to time: an operator may change the settings of a server that runs. Raises `Lost`."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            await check_server(line, address)
        except ConfigurationError as error:
            raise Lost(str(error).removeprefix(f"broker: {address}: ")) from None


async def load_scripts(line: RedisLine) -> None:
    """Load every script at once: a publish that had to send its script would be overtaken by the next."""
    for script in scripts.ALL:
        await line.command("SCRIPT", "LOAD", script.text)


async def open_log(line: RedisLine, new_epoch: Callable[[], str], epoch: str, seen: int) -> RedisOpening:
    """Open the log, as a node that has seen it up to a number. A new epoch is named only where there is no log.

    Raises `Lost` also where the server takes no writes now, as a new life of the log is one.
    """
    try:
        try:
            answer = await line.script(scripts.OPEN, "", epoch, seen)
        except NoLog:
            answer = await line.script(scripts.OPEN, new_epoch(), epoch, seen)
    except Refusal as refusal:
        raise Lost(refusal.message) from None
    life, found, seq, *holes = answer
    return RedisOpening(life, found.decode(), int(seq), frozenset(_hole(hole) for hole in holes))


def _hole(text: bytes) -> tuple[int, int]:
    before, _, after = text.partition(b" ")
    return int(before), int(after)


def _field(info: bytes, name: bytes) -> bytes:
    for line in info.splitlines():
        if line.startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""
