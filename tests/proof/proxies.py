"""Every clause of the transports' contract through each real proxy, and connections that are quiet for minutes.

`make test` has the quick clauses; here are all, of every transport. Before them each proxy holds a WebSocket, a stream
and a long poll on which nothing is published for longer than any default timeout of a proxy, and a message ends the
quiet. The status is 1 where something did not hold.

    python -m tests.proof.proxies [--proxy NAME]... [--clause NAME]... [--quiet SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from oncecast import AsyncClient, Gap
from oncecast.message import Draft
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.subscribers import SUBSCRIBERS
from oncecast.testing.transport import CHECKS
from tests.brokers.certificates import Authority, Pair
from tests.brokers.servers import Servers
from tests.proxies.contract import fronted, keeps
from tests.proxies.programs import PROGRAMS, running, site_of

__all__ = ["broken_clauses", "broken_quiet", "main"]

QUIET_SECONDS = 130.0  # twice the longest default, nginx's and httpd's 60 s
SECONDS = 60.0
UNBROKEN = ["connecting", "listening", "closed"]  # the states of a client whose connection is never lost
TRANSPORTS = ("websocket", "sse", "long-poll")


async def broken_clauses(
    proxies: Sequence[str], clauses: Sequence[str], folder: Path, pair: Pair, redis_url: str
) -> list[str]:
    """Check clauses of every transport through these proxies; return which do not hold, and why."""
    broken = []
    for proxy in proxies:
        began, held = time.monotonic(), 0
        with fronted(proxy, folder, pair) as front:
            for kind in SUBSCRIBERS:
                for clause in clauses:
                    try:
                        await keeps(kind, clause, front, redis_url)
                        held += 1
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the rest is checked
                        broken.append(f"{proxy}: {kind.name} {clause}: {type(error).__name__} {error}")
        say(f"{proxy:<8} {held} clauses held in {time.monotonic() - began:.0f} s")
    return broken


async def broken_quiet(proxies: Sequence[str], folder: Path, pair: Pair, quiet: float) -> list[str]:
    """Keep connections quiet for some seconds; return those that were opened again meanwhile, or missed the message."""
    broken: list[str] = []
    server = Server(Settings(port=0))
    await server.start()
    try:
        with ExitStack() as stack:
            ports = {}
            for proxy in proxies:
                program = PROGRAMS[proxy]
                site = site_of(folder / f"{proxy}-quiet", [server.port] * 3, pair)
                stack.enter_context(running(program, program.fitted(site), site))
                ports[proxy] = site.plain
            listeners = {
                (proxy, transport): asyncio.create_task(_listen(port, transport))
                for proxy, port in ports.items()
                for transport in TRANSPORTS
            }
            await asyncio.sleep(quiet)
            server.node.publish((Draft("quiet", b"1"),), lambda outcomes: None)
            for (proxy, transport), listener in listeners.items():
                try:
                    states = await asyncio.wait_for(listener, SECONDS)
                except TimeoutError:
                    states = ["no message"]
                if states != UNBROKEN:
                    broken.append(f"{proxy}: {transport} was quiet for {quiet:g} s: {' → '.join(states)}")
                say(f"{proxy:<8} {transport} quiet for {quiet:g} s: {' → '.join(states)}")
    finally:
        await server.stop(0)
    return broken


async def _listen(port: int, transport: str) -> list[str]:
    """Listen until a message comes; return the states that the client was in."""
    states: list[str] = []
    async with AsyncClient(f"http://127.0.0.1:{port}", transports=[transport]) as client:
        client.on("state", lambda change: states.append(str(change.after.value)))
        async for item in client.subscribe("quiet", after="latest").events():
            if isinstance(item, Gap):
                states.append(f"gap {item.reason}")
            else:
                break
        return states


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run the proofs; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.proxies")
    parser.add_argument("--proxy", action="append", choices=PROGRAMS, help="one of these only; repeatable")
    parser.add_argument("--clause", action="append", choices=CHECKS, help="one of these only; repeatable")
    parser.add_argument("--quiet", type=float, default=QUIET_SECONDS, metavar="SECONDS")
    options = parser.parse_args(arguments)
    proxies = options.proxy or list(PROGRAMS)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # the proxies' own users read it
        (folder / "servers").mkdir()
        pair = Authority(folder, "authority").issue("localhost", "localhost", "127.0.0.1")
        redis_url = Servers(folder / "servers", stack)("redis").url
        broken = asyncio.run(broken_quiet(proxies, folder, pair, options.quiet))
        broken += asyncio.run(broken_clauses(proxies, options.clause or list(CHECKS), folder, pair, redis_url))
    for line in broken:
        sys.stderr.write(f"does not hold: {line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
