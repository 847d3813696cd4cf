"""The JavaScript client: its types, its size, and its own tests, which Node runs against a server in this process.

The tests in a browser are in `web/test_client.py`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import oncecast
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

HERE = Path(__file__).parent
CLIENT = Path(oncecast.__file__).parent / "web" / "client"
TOOLS = HERE / "peers" / "node_modules" / ".bin"
MODULES = sorted(path.name for path in (HERE / "js").glob("*.test.mjs"))
SERVED = [name for name in MODULES if name != "wire.test.mjs"]  # which is about one module's own exports
TWICE = {"client.test.mjs"}  # of what is served, and of the modules that npm has; the others see what is served
HEARTBEAT_SECONDS = 0.4  # so that a silence is noticed within a second
SECONDS = 110.0  # for one file of tests; the slowest takes half a minute
MOST_BYTES = 8192  # of all that a page loads, as it goes over the wire


def program(name: str) -> str:
    """Where a program is: Node's, or one of those that the tests have installed beside `ws`."""
    found = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"there is no {name}: run scripts/system-packages, and npm ci --prefix tests/peers")
    return found


async def run(name: str, *arguments: str, **environment: str) -> bytes:
    """Run a program, which has to succeed, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        program(name),
        *arguments,
        cwd=HERE / "js",
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 0 == process.returncode, (out + errors).decode()
    return out


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose heart beats fast."""
    server = Server(Settings(port=0, dev=True, limits=Limits(heartbeat_seconds=HEARTBEAT_SECONDS)))
    await server.start()
    yield server
    await server.stop(0)


@pytest.mark.parametrize("name", [name for name in MODULES if name in TWICE or name not in SERVED])
async def test_the_modules_in_node(server: Server, name: str) -> None:
    """The tests of one file pass with the modules as they are written."""
    await run("node", "--test", "--test-reporter=spec", name, ONCECAST_SERVER=f"http://127.0.0.1:{server.port}")


@pytest.mark.parametrize("name", SERVED)
async def test_what_is_served_in_node(server: Server, tmp_path: Path, name: str) -> None:
    """The tests of one file pass with the one module that a server sends."""
    url = f"http://127.0.0.1:{server.port}"
    client = tmp_path / "oncecast.mjs"
    client.write_bytes((await get(f"{url}/oncecast.js"))[1])
    await run("node", "--test", "--test-reporter=spec", name, ONCECAST_SERVER=url, ONCECAST_CLIENT=str(client))


async def test_the_types_are_right() -> None:
    """The modules do what `types.d.ts` says, as TypeScript's strict rules see it."""
    await run("tsc", "--project", "tsconfig.json")


async def get(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """What a server answers: its headers, their names in lower case, and its body."""

    def fetch() -> tuple[dict[str, str], bytes]:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}, answer.read()

    return await asyncio.to_thread(fetch)


async def test_the_client_is_small(server: Server) -> None:
    """The one answer that a page waits for, which imports nothing more, is small as it goes over the wire."""
    headers, body = await get(f"http://127.0.0.1:{server.port}/oncecast.js", **{"Accept-Encoding": "br, gzip"})
    assert "gzip" == headers["content-encoding"]
    assert len(body) <= MOST_BYTES
    text = gzip.decompress(body).decode()
    assert "import" not in text
    assert (await get(f"http://127.0.0.1:{server.port}/oncecast.js"))[1].decode() == text


async def test_the_sources_can_be_read(server: Server) -> None:
    """The modules are served as they are written, each by its name."""
    for module in CLIENT.glob("*.js"):
        _, body = await get(f"http://127.0.0.1:{server.port}/web/client/{module.name}")
        assert module.read_bytes() == body


def test_the_package_for_npm_is_of_this_version() -> None:
    """What npm would publish names its version and its files, and all of them exist."""
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    assert oncecast.__version__ == package["version"]
    for target in (package["types"], *package["exports"]["."].values()):
        assert (CLIENT / target).is_file()
    assert "dependencies" not in package
