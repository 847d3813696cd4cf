"""`oncecast serve --app` as real processes, with an application in Starlette on the loop that servers have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

import oncecast
from tests.asgi.conftest import SECONDS, free_port

MODULE = """
import contextlib, os
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from oncecast import Oncecast

cast = Oncecast("sqlite:///app.db", subscribe="public")

@contextlib.asynccontextmanager
async def lifespan(app):
    if os.path.exists("broken"):
        raise RuntimeError("no database here")
    async with cast:
        yield
    with open("ended", "a") as file:
        file.write("x")

async def pid(request):
    return JSONResponse({"pid": os.getpid(), "scheme": request.url.scheme})

async def order(request):
    await request.body()
    return JSONResponse({"id": (await cast.publish("orders", request.query_params["item"])).id})

routes = [Route("/pid", pid), Route("/orders", order, methods=["POST"]), Mount("/rt", cast)]
app = Starlette(routes=routes, lifespan=lifespan)
number = 3
"""

# A process that stands where systemd would: it puts the socket where it is looked for, and becomes the server.
STARTER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)  # it may have been that one all along
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Served:
    """A server that runs, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    async def until(self, pattern: str) -> None:
        """Wait until the log has this."""
        async with asyncio.timeout(SECONDS):
            while re.search(pattern, self.log) is None:
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.05)

    async def ended(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *options: str,
    opened: socket.socket | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Served]:
    """Run `oncecast serve` in a folder that has the application. systemd has `opened` its socket, if there is one."""
    (folder / "shop.py").write_text(MODULE)
    port, log = free_port(), folder / "log"
    starter: tuple[str, ...] = ()
    if opened is not None:
        starter = ("-c", STARTER, str(opened.fileno()), sys.executable)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONCECAST_")} | {**variables}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *starter, "-m", "oncecast", "serve", "--port", str(port), *options),
            pass_fds=() if opened is None else (opened.fileno(),),
            cwd=folder,
            env=environ,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Served(process, port if opened is None else opened.getsockname()[1], log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_workers_reload_and_roll_with_an_application(tmp_path: Path) -> None:
    """Several workers serve both, share the log, read settings again, are replaced one by one, and end in order."""
    (tmp_path / "oncecast.toml").write_text('access_log = "off"\n')
    async with running(tmp_path, "--app", "shop:app", "--workers", "2") as served:
        await served.until("is listening on")
        client, http = oncecast.AsyncClient(served.url), httpx.AsyncClient(timeout=SECONDS)
        async with client, http, client.subscribe("orders") as messages, asyncio.timeout(SECONDS):
            assert 200 == (await http.post(f"{served.url}/orders?item=tea")).status_code
            assert "tea" == (await anext(messages)).data
            before = await pids(served.url)
            (tmp_path / "oncecast.toml").write_text('access_log = "text"\n')
            served.process.send_signal(signal.SIGHUP)
            await served.until("the settings have been read again")
            while "path=/pid status=200" not in served.log:  # the order to the workers is on its way
                await pids(served.url)
            served.process.send_signal(signal.SIGUSR2)
            await served.until("every worker is a new one")
            while before & await pids(served.url):  # the old ones drain
                pass
            async with httpx.AsyncClient(timeout=SECONDS) as fresh:
                assert 200 == (await fresh.post(f"{served.url}/orders?item=cake")).status_code
            assert "cake" == (await anext(messages)).data
            served.process.send_signal(signal.SIGTERM)
            assert 0 == await served.ended()
    assert "xxxx" == (tmp_path / "ended").read_text()


async def pids(url: str) -> set[int]:
    """Return the processes that have answered some requests, each on a connection of its own."""
    found = set()
    for _ in range(8):
        async with httpx.AsyncClient(timeout=SECONDS) as http:
            found.add((await http.get(f"{url}/pid")).json()["pid"])
    return found


async def test_one_process_serves_both_on_each_connection(tmp_path: Path) -> None:
    """On the loop that servers have, one connection serves both, and a stream at the stop ends the server in order."""
    async with running(tmp_path, "--app", "shop:app", "--access-log", "text") as served:
        await served.until("is listening on")
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(timeout=SECONDS, limits=limits) as http, asyncio.timeout(SECONDS):
            for _ in range(3):
                assert "http" == (await http.get(f"{served.url}/pid")).json()["scheme"]
                native, mounted = [
                    (await http.get(f"{served.url}{path}/v1/channels/orders")).json()["messages"]
                    for path in ("", "/rt")
                ]
                assert native == mounted
                large = await http.post(f"{served.url}/orders?item=", content=b"x" * 2_000_000)
                assert 200 == large.status_code
                assert 403 == (await http.post(f"{served.url}/v1/channels/orders", content=b"x")).status_code
            async with http.stream("GET", f"{served.url}/v1/channels/a", headers={"Accept": "text/event-stream"}):
                served.process.send_signal(signal.SIGTERM)
                assert 0 == await served.ended()
    assert "x" == (tmp_path / "ended").read_text()
    assert re.search(r"access: address=127.0.0.1 method=GET path=/pid status=200 bytes=\d+ seconds=", served.log)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_how_the_server_listens_is_not_the_applications(tmp_path: Path, options: tuple[str, ...]) -> None:
    """An image says by a variable that the server is there for other machines: the `Oncecast` listens nowhere."""
    async with running(tmp_path, "--app", "shop:app", *options, variables={"ONCECAST_HOST": "0.0.0.0"}) as served:
        await served.until("is listening on http://0.0.0.0")
        assert await pids(served.url)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_a_start_that_fails_is_one_line_below_its_traceback(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The server ends with 2, and says why: by the application's traceback, and then in one line."""
    (tmp_path / "broken").touch()
    async with running(tmp_path, "--app", "shop:app", *options) as served:
        assert 2 == await served.ended()
    assert 'raise RuntimeError("no database here")' in served.log
    assert "Error: --app shop:app: the application's start has failed" in served.log.splitlines()[-1]


@pytest.mark.parametrize("target, said", [("nothing:app", "there is no module nothing"), ("shop:number", "as an int")])
async def test_what_is_no_application_is_one_line(tmp_path: Path, target: str, said: str) -> None:
    """The server ends with 2, and the one line that it has written says what is wrong."""
    async with running(tmp_path, "--app", target) as served:
        assert 2 == await served.ended()
    assert 1 == len(served.log.splitlines()), served.log
    assert said in served.log


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_socket_of_systemds_is_served_with_an_application(tmp_path: Path, workers: str) -> None:
    """Both are at the port that systemd has opened, a request that came before the start too, and at no other."""
    request = b"GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as opened:
        reader, writer = await asyncio.open_connection(*opened.getsockname())
        writer.write(request)
        async with running(tmp_path, "--app", "shop:app", "--workers", workers, opened=opened) as served:
            async with asyncio.timeout(SECONDS):
                assert b"200" == (await reader.read()).split()[1]
            writer.close()
            await served.until(f"is listening on http://127.0.0.1:{opened.getsockname()[1]}")
            client, http = oncecast.AsyncClient(served.url), httpx.AsyncClient(timeout=SECONDS)
            async with client, http, client.subscribe("orders") as messages, asyncio.timeout(SECONDS):
                assert 200 == (await http.post(f"{served.url}/orders?item=tea")).status_code
                assert "tea" == (await anext(messages)).data
            served.process.send_signal(signal.SIGTERM)
            assert 0 == await served.ended()
    assert "x" * int(workers) == (tmp_path / "ended").read_text()
