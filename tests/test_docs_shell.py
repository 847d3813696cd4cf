"""The shell blocks of the pages that are not marked `run` are run too, each in a folder that has what it names.

What another machine or a root's folder would be is this machine and that folder: a URL of the pages is that of a real
server, with a token's secret and keys, at which something is published all the time. A command that does not end by
itself has to say something that is no error, and goes on until it is ended. `ELSEWHERE` has the commands that other
tests run, and which.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.processes import environment, free_port
from oncecast.policy.server_keys import hash_line, make_key
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from oncecast.server.tls.development import with_certificate
from tests.brokers.servers import Servers, leave_a_log
from tests.docs_rig import ROOT, Block, bash, blocks, busy, name, pages
from tests.token_rig import SECRET

SECONDS = 120.0
STAYS_SECONDS = 0.3  # for which a command that does not end goes on after its first words
KEY = make_key(bytes(32))
# What is run by other tests, or is the work of another program; the words that a line begins with.
ELSEWHERE = {
    "make ": "the Makefile's targets are what CI runs",
    "pip install": "test_installed.py and test_package.py install the package",
    "python3 -m venv": "the same",
    "python3 -m http.server": "test_docs_programs.py serves the tutorial's page",
    "sudo apt-get": "scripts/brokers installs the servers",
    "redis-server ": "brokers/test_how_to.py follows the pages of the brokers",
    "nats-server ": "the same",
    "cat > nats.conf": "the same",
    "oncecast/bin/oncecast ": "the same",
    "scripts/brokers start": "make test does it",
    "rabbitmqctl eval": "brokers/rabbitmq has the fault that it mends",
    "oncecast bench": "benchmarks/ and cli/test_bench.py run it, with less of it",
    "oncecast compare": "cli/test_compare.py runs it, for seconds and not minutes",
    "oncecast token inspect --fetch": "cli/test_token.py has an issuer to fetch from",
    'curl -X POST -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/v1/drain': "http/test_operator.py drains one",
}
PLACES = [  # what the pages call a server
    r"https://(?:rt|live)\.example(?:\.com)?",
    r"http://10\.0\.0\.7:8000",
    r"http://10\.0\.0\.7:8080/live",
    r"http://127\.0\.0\.1:8000",
]
ENDLESS = re.compile(r"oncecast (serve|demo \w|sub(?!.*--(count|no-follow)))|tail -f")


@dataclass(frozen=True, slots=True)
class Site:
    """What the lines are run against: the server's URL, and brokers' ports by those of the pages."""

    url: str
    ports: dict[str, int]

    def here(self, line: str, folder: Path) -> str:
        """Return a line of a page with what is on this machine."""
        for place in PLACES:
            line = re.sub(place, self.url, line)
        for shown, own in self.ports.items():
            line = re.sub(rf"(?<=127\.0\.0\.1:){shown}\b", str(own), line)
        line = line.replace(".venv/bin/oncecast", "oncecast").replace("/etc/", f"{folder}/").replace("~/", f"{folder}/")
        line = re.sub(r"--port \d+|--quiet-seconds \d+", "", line)
        line = re.sub(r"oncecast (serve\b|demo \w+)([^|&]*)", rf"oncecast \1 --port {free_port()} \2", line)
        return re.sub(r"oncecast doctor (\S+)", r"oncecast doctor \1 --quiet-seconds 0", line)


def shell() -> list[tuple[str, Block]]:
    """The blocks without a mark, with their places."""
    return [
        (f"{name(page)}:{block.line}", block)
        for page in pages()
        for block in blocks(page)
        if block.language == "sh" and not block.mark and lines_of(block)
    ]


def lines_of(block: Block) -> list[str]:
    """Return the lines that are to be run here; a comment at the end of a line is none of it."""
    text = re.sub(r"<<'END'\n(?:.*\n)*?END\n", "\n", block.text)
    lines = [re.sub(r"\s+#\s.*", "", line).replace(".venv/bin/", "") for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(tuple(ELSEWHERE))]


@dataclass
class Terminal:
    """Runs lines in one folder, with the programs of this environment."""

    folder: Path
    site: Site

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of a line: `less` and `systemctl` are stand-ins, as is the editor."""
        programs = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return environment() | {
            "PATH": ":".join(programs),
            "HOME": str(self.folder),
            "CURL_HOME": str(self.folder),
            "EDITOR": "true",
            "KEY": KEY,
            "ONCECAST_URL": self.site.url,
            "ONCECAST_AUTH__SECRET": SECRET,
        }

    async def run(self, line: str) -> None:
        """Run a line to its end, or until it has said something where it has none."""
        endless = ENDLESS.search(line) is not None
        line = self.site.here(line, self.folder)
        said = b""
        try:
            async with bash(line, self.folder, self.variables) as process, asyncio.timeout(SECONDS):
                assert process.stdout is not None
                if endless:
                    said = await process.stdout.readline()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), STAYS_SECONDS)
                    assert process.returncode is None, f"{line}: ended, after {said!r}"
                    assert said, line
                    assert not re.match(rb"Error|Traceback|Usage", said), f"{line}: {said!r}"
                else:
                    said, _ = await process.communicate()
                    assert 0 == process.returncode, f"{line}: {said.decode()}"
        except TimeoutError:
            raise AssertionError(f"{line}: does not end, after {said!r}") from None


async def furnish(folder: Path, home: Path) -> None:
    """Put into a folder what the pages' commands name."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for program, text in (("less", 'exec cat "$@"'), ("systemctl", "exec true")):
        (programs / program).write_text(f"#!/bin/sh\n{text}\n")
        (programs / program).chmod(0o755)
    made = with_certificate(Settings(tls=True), {"XDG_STATE_HOME": str(home)})
    shutil.copy(made.tls_cert[0], folder / "cert.pem")
    shutil.copy(made.tls_key[0], folder / "key.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "issuer-private.pem").write_bytes(pem)
    now = int(time.time())
    (folder / "token.txt").write_text(jwt.encode({"sub": "ann", "iat": now, "exp": now + 600}, SECRET, "HS256"))
    (folder / "oncecast.toml").write_text('[channels."chat.*"]\nsubscribe = "public"\n[channels."user.{sub}"]\n')
    (folder / "app.log").write_text("a line\n")
    (folder / "cat.png").write_bytes(b"\x89PNG")
    (folder / ".oncecast-key").write_text(KEY)
    (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    (folder / "shop").mkdir()
    (folder / "shop" / "main.py").write_text("async def app(scope, receive, send):\n    raise NotImplementedError\n")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    await leave_a_log(folder, "news", "sport")


@contextlib.asynccontextmanager
async def a_busy_server() -> AsyncIterator[Server]:
    """Run a server at which something is published all the time."""
    auth = AuthSettings(secret=SECRET, server_keys=(hash_line("shop", KEY),))
    rules = {"*": ChannelRule(subscribe="public", publish="public")}
    origins = ("https://app.example.com",)
    server = Server(Settings(port=0, dev=True, auth=auth, origins=origins, channels=rules))
    await server.start()
    try:
        async with busy(server):
            yield server
    finally:
        await server.stop(0)


@pytest.mark.parametrize("block", [block for _, block in shell()], ids=[place for place, _ in shell()])
async def test_the_block_is_run(block: Block, servers: Servers, tmp_path: Path) -> None:
    """Each of its lines does what it is there for, and exits with 0, or goes on until it is ended."""
    folder = tmp_path / "here"
    await furnish(folder, tmp_path)
    with ExitStack() as stack:
        ports = {}
        for kind, shown in (("redis", "6379"), ("nats", "4222")):
            if f"{kind}://" in block.text:
                ports[shown] = (await asyncio.to_thread(servers.own, kind, stack)).port
        async with a_busy_server() as server:
            terminal = Terminal(folder, Site(f"http://127.0.0.1:{server.port}", ports))
            if ports or "log.jsonl" in block.text:
                await terminal.run("oncecast broker export sqlite:///oncecast.db > log.jsonl")
            for kind, shown in (("redis", "6379"), ("nats", "4222")):
                if shown in ports and f"broker import {kind}://" not in block.text:
                    await terminal.run(f"oncecast broker import {kind}://127.0.0.1:{shown} < log.jsonl")
            if re.search("config init(?! -)", block.text):
                (folder / "oncecast.toml").unlink()
            for line in lines_of(block):
                await terminal.run(line)


def test_what_is_not_run_here_is_shown_somewhere() -> None:
    """An entry of `ELSEWHERE` that no page needs any more has to go."""
    text = "\n".join(block.text.replace(".venv/bin/", "") for page in pages() for block in blocks(page))
    assert [] == [start for start in ELSEWHERE if not re.search(f"^{re.escape(start)}", text, re.MULTILINE)]
