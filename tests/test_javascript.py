"""The JavaScript client: its types, its size, and its own tests, which Node runs against a server in this process.

The tests in a browser are in `web/test_client.py`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

import oncecast
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Limits, Settings
from oncecast.server.tls.development import with_certificate
from tests.docs_rig import blocks, name, pages
from tests.token_rig import SECRET

HERE = Path(__file__).parent
ROOT = HERE.parent
CLIENT = Path(oncecast.__file__).parent / "web" / "client"
TOOLS = HERE / "peers" / "node_modules" / ".bin"
WEB = ROOT / "scripts" / "web"
MODULES = sorted(path.name for path in (HERE / "js").glob("*.test.mjs"))
BUNDLED = ("client.test.mjs", "lifetime.test.mjs", "publishing.test.mjs")  # they use all that it exports
HEARTBEAT_SECONDS = 0.4  # so that a silence is noticed within a second
SECONDS = 220.0  # for one file of tests; the slowest takes half a minute
MOST_BYTES = 14_336  # of all that a page loads, as it goes over the wire


def program(name: str) -> str:
    """Where a program is: Node's, or one of those that the tests have installed beside `ws`."""
    found = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"there is no {name}: run make .make/peers .make/web")
    return found


async def run(
    name: str, *arguments: str, cwd: Path = HERE / "js", environment: Mapping[str, str] | None = None
) -> bytes:
    """Run a program, which has to succeed, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        program(name),
        *arguments,
        cwd=cwd,
        env=os.environ | dict(environment or {}),
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


@pytest_asyncio.fixture
async def guarded() -> AsyncIterator[Server]:
    """A server that verifies tokens, and to which clocks are exact."""
    auth = AuthSettings(secret=SECRET, leeway_seconds=0)
    server = Server(Settings(port=0, auth=auth, limits=Limits(heartbeat_seconds=HEARTBEAT_SECONDS)))
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as a release serves it, made by the script that makes it for a release."""
    made = tmp_path_factory.mktemp("bundle") / "oncecast.mjs"
    asyncio.run(run("npm", "run", "--silent", "build", "--", f"--outfile={made}", cwd=WEB))
    return made


@pytest.mark.parametrize("name", MODULES)
async def test_the_modules_in_node(server: Server, guarded: Server, name: str) -> None:
    """The tests of one file pass with the modules as they are written."""
    await run("node", "--test", "--test-reporter=spec", name, environment=addresses(server, guarded))


@pytest.mark.parametrize("name", BUNDLED)
async def test_the_bundle_in_node(server: Server, guarded: Server, bundle: Path, name: str) -> None:
    """The tests of one file pass with the one file that a release serves."""
    environment = {**addresses(server, guarded), "ONCECAST_CLIENT": str(bundle)}
    await run("node", "--test", "--test-reporter=spec", name, environment=environment)


def addresses(server: Server, guarded: Server) -> dict[str, str]:
    """Where the servers are, and what signs tokens."""
    local = "http://127.0.0.1:"
    return {
        "ONCECAST_SERVER": f"{local}{server.port}",
        "ONCECAST_GUARDED": f"{local}{guarded.port}",
        "ONCECAST_SECRET": SECRET,
    }


async def test_the_client_over_tls(tmp_path: Path) -> None:
    """Node trusts the certificate that `--dev --tls` makes where NODE_EXTRA_CA_CERTS names it, on every transport."""
    settings = with_certificate(Settings(port=0, dev=True, tls=True), {"XDG_STATE_HOME": str(tmp_path)})
    server = Server(settings)
    await server.start()
    try:
        environment = {
            "ONCECAST_SERVER": f"https://localhost:{server.port}",
            "NODE_EXTRA_CA_CERTS": settings.tls_cert[0],
        }
        await run("node", "--test", "--test-reporter=spec", "secure.mjs", environment=environment)
    finally:
        await server.stop(0)


async def test_the_types_are_right() -> None:
    """The modules do what `types.d.ts` says, as TypeScript's strict rules see it."""
    await run("tsc", "--project", "tsconfig.json")


async def get(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """What a server answers: its headers, their names in lower case, and its body."""

    def fetch() -> tuple[dict[str, str], bytes]:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}, answer.read()

    return await asyncio.to_thread(fetch)


def test_what_the_pages_show_can_be_read() -> None:
    """Each block of JavaScript in the docs is the text of a module, or of a part of one."""
    shown = {
        f"{name(page)}:{block.line}": block.text for page in pages() for block in blocks(page) if block.language == "js"
    }
    assert len(shown) > 20
    read = """
      import vm from "node:vm";
      const shown = JSON.parse(await new Promise((resolve) => {
        let text = "";
        process.stdin.on("data", (data) => (text += data)).on("end", () => resolve(text));
      }));
      for (const [place, text] of Object.entries(shown)) {
        try {
          new vm.SourceTextModule(text);
        } catch (error) {
          console.log(`${place}: ${error.message}`);
        }
      }
    """
    node = [program("node"), "--no-warnings", "--experimental-vm-modules", "--input-type=module", "--eval", read]
    found = [
        subprocess.run(node, input=json.dumps(texts), capture_output=True, text=True, check=True, timeout=60).stdout
        for texts in (shown, {"broken": "const = 1;"})
    ]
    assert ["", "broken"] == [text.partition(":")[0] for text in found], found


def test_the_client_is_small(bundle: Path) -> None:
    """What a page of a released server waits for imports nothing more, and is small as it goes over the wire."""
    text = bundle.read_text("utf-8")
    assert "import" not in text
    assert len(gzip.compress(text.encode(), mtime=0)) <= MOST_BYTES


async def test_a_checkout_serves_the_modules(server: Server) -> None:
    """`/oncecast.js` exports the modules that are served as they are written, each by its name."""
    url = f"http://127.0.0.1:{server.port}"
    assert b'export * from "./web/client/index.js";\n' == (await get(f"{url}/oncecast.js"))[1]
    for module in CLIENT.glob("*.js"):
        assert module.read_bytes() == (await get(f"{url}/web/client/{module.name}"))[1]
