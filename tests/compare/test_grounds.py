"""The servers of a comparison: its own are processes that end with it, a foreign one is asked for its CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from oncecast.client.credentials import Credentials
from oncecast.client.dialing import Endpoint
from oncecast.client.failures import Broken
from oncecast.client.http import HttpConnection
from oncecast.client.timing import Timing
from oncecast.client.url import ServerUrl
from oncecast.compare import grounds
from oncecast.compare.grounds import ALL, NOBODY, ForeignServer, OwnServers
from oncecast.server.server import Server
from tests.compare.conftest import until, url_of


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "zombie" not in Path(f"/proc/{pid}/status").read_text("ascii")
    return False


async def test_own_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transport has a server that answers, without the settings of the place; one that dies is named."""
    (tmp_path / "oncecast.toml").write_text("nonsense = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONCECAST_NONSENSE", "1")
    async with OwnServers(["sse"]) as own:
        assert ["sse", NOBODY] == list(own.servers)
        for url in own.servers.values():
            connection = HttpConnection(Endpoint(url), timing=Timing(answer=60))
            assert 200 == (await connection.request("GET", "/readyz")).status
            await connection.close()
        cpu = await own.cpu()
        assert {"sse", NOBODY} == cpu.keys()
        assert 0 < min(cpu.values()) < 60
        pids = [process._process.pid for process in own._processes.values() if process._process]
        os.kill(pids[0], signal.SIGKILL)
        assert "the server of sse has ended: signal 9" == await asyncio.wait_for(own.ended(), 60)
        assert {NOBODY} == (await own.cpu()).keys()
    await until(lambda: not any(map(_alive, pids)))


SLEEPER = """
import asyncio
from oncecast.compare.grounds import OwnServers

async def main():
    async with OwnServers(["sse"]) as own:
        print(*(process._process.pid for process in own._processes.values()), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_own_servers_end_with_a_comparison_that_is_killed() -> None:
    """Servers whose comparison has no time to end them end by themselves."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEPER, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        pids = [int(pid) for pid in (await asyncio.wait_for(process.stdout.readline(), 60)).split()]
        assert [True, True] == [_alive(pid) for pid in pids]
    finally:
        process.kill()
        await process.communicate()
    await until(lambda: not any(map(_alive, pids)))


async def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is the reason, and the others are ended."""
    monkeypatch.setattr(grounds, "_PROGRAM", "import sys; sys.exit('no such {parent}'[:7])")
    with pytest.raises(Broken, match=r"^a server of our own does not start: no such$"):
        await OwnServers(["sse"]).__aenter__()


async def test_no_server_starts_beside_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others that are still starting are given up before the servers are stopped: none is made after that."""
    said: list[str] = []

    async def start(process: object) -> ServerUrl:
        said.append("starts")
        if len(said) == 1:
            raise Broken("no such")
        try:
            await asyncio.Event().wait()
        finally:
            said.append("given up")
        raise AssertionError

    async def stop(process: object) -> None:
        said.append("stopped")

    monkeypatch.setattr("oncecast.compare.grounds._ServerProcess.start", start)
    monkeypatch.setattr("oncecast.compare.grounds._ServerProcess.stop", stop)
    with pytest.raises(Broken, match=r"^no such$"):
        await OwnServers(["sse"]).__aenter__()
    assert ["starts", "starts", "given up", "stopped", "stopped"] == said


async def test_a_foreign_server_of_ours(server: Server) -> None:
    """Its metrics say its CPU time."""
    ground = ForeignServer(url_of(server), credentials=Credentials(None))
    before = time.process_time()
    found = await ground.cpu()
    assert [ALL] == list(found)
    assert before <= found[ALL] <= time.process_time()


async def test_a_foreign_server_that_is_away() -> None:
    """It has no CPU time."""
    assert {} == await ForeignServer(ServerUrl("http", "127.0.0.1", 1, ""), credentials=Credentials(None)).cpu()


async def test_a_foreign_server_behind_which_others_count() -> None:
    """The name that Prometheus's client libraries give it is read too."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 12.5\nother 1\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        writer.close()

    peer = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = ServerUrl("http", "127.0.0.1", peer.sockets[0].getsockname()[1], "")
    assert {ALL: 12.5} == await ForeignServer(url, credentials=Credentials(None)).cpu()
    peer.close()
