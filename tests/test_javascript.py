"""The JavaScript client: its types, its size, and its own tests, which Node runs against a server in this process.

The tests in a browser are in `web/test_client.py`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import oncecast
from oncecast.server.pages import load_pages
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

HERE = Path(__file__).parent
CLIENT = Path(oncecast.__file__).parent / "web" / "client"
TOOLS = HERE / "peers" / "node_modules" / ".bin"
TESTS = sorted(path.name for path in (HERE / "js").glob("*.test.mjs"))
HEARTBEAT_SECONDS = 0.4  # so that a silence is noticed within a second
SECONDS = 110.0  # for one file of tests; the slowest takes half a minute
MOST_BYTES = 8704  # of all that a page needs, minified and compressed


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


@pytest.mark.parametrize("name", TESTS)
async def test_what_node_runs(server: Server, name: str) -> None:
    """The tests of one file pass."""
    url = f"http://127.0.0.1:{server.port}"
    await run("node", "--test", "--test-reporter=spec", name, ONCECAST_SERVER=url)


async def test_the_types_are_right() -> None:
    """The modules do what `types.d.ts` says, as TypeScript's strict rules see it."""
    await run("tsc", "--project", "tsconfig.json")


async def test_the_client_is_small() -> None:
    """All modules together, minified and compressed, are what a page can afford."""
    options = ("--bundle", "--minify", "--format=esm", "--log-level=warning")
    bundle = await run("esbuild", str(CLIENT / "index.js"), *options)
    assert len(gzip.compress(bundle, mtime=0)) <= MOST_BYTES


def test_the_server_has_each_module() -> None:
    """`/oncecast.js` leads to the modules, all of which are served."""
    pages = load_pages()
    assert b"./web/client/index.js" in pages["/oncecast.js"].body
    for module in CLIENT.glob("*.js"):
        assert module.read_bytes() == pages[f"/web/client/{module.name}"].body


def test_the_package_for_npm_is_of_this_version() -> None:
    """What npm would publish names its version and its files, and all of them exist."""
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    assert oncecast.__version__ == package["version"]
    for target in (package["types"], *package["exports"]["."].values()):
        assert (CLIENT / target).is_file()
    assert "dependencies" not in package
