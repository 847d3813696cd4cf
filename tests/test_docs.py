"""The written side: pages made from the code are fresh, links lead somewhere, and what the examples show is true.

Owns the marks that make an example a test, HTML comments on the line above a block:

* `run`: the shell block is run, in order within its file, against a server that the file has for itself; `run stream`
  is stopped when it has printed what is expected, or its first line.
* `prints`, after one of these: the block is what it prints. Blank lines aside; the epoch and times are made alike.
* `socket PATH [PROTOCOL]`: lines with → are sent and lines with ← expected on that WebSocket.
* `token`: Python that defines `token_of`, which `test_docs_tokens.py` uses.
* `app`: Python of an application, checked and run by `tests/asgi/test_examples.py`.
* `celery`: a task, run by a worker of Celery in `tests/asgi/test_celery.py`.
* `file NAME`: a file of the project that `tests/testing/test_how_to.py` checks and runs, or an application that
  `tests/asgi/test_move_in.py` runs.
* `front NAME`: an application of that name, which `web/test_front_ends.py` or `web/test_htmx.py` runs in a browser.
* `page`: a page that only a browser could run. `begin NAME`: made by `scripts/reference.py`.

Without a mark a Python program that names the examples' server is run against one where something is published all the
time; it ends by itself, or is ended once it has printed something. Other Python, JSON and TOML are read here. Shell is
read by `test_docs_commands.py` and run by `test_docs_shell.py`; JavaScript is read by `test_javascript.py` and run by
`web/test_docs_programs.py`. To have another kind of block checked, add it to `READ`,
with a test that goes through `blocks`.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import itertools
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import websockets
from websockets.asyncio.client import connect

from oncecast.cli.server import serve
from oncecast.protocol import events
from oncecast.protocol.base import DRAIN_MS
from oncecast.server import config
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.docs_rig import ROOT, SERVER, Block, bash, blocks, busy, name, pages, without_blocks

SECONDS = 60.0  # for one example; the slowest waits for a fraction of a second
EPOCH, TIME = "k3f9x2", "1764000000.123"  # what their ids and times look like

# What is read without a mark; of a proxy's own languages `proxies/test_files.py` reads what a page has of our files.
READ = {"python", "json", "toml", "sh", "js", "text", "nginx", "apache", "yaml", "jsx"}

_LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


each_page = pytest.mark.parametrize("page", pages(), ids=name)


# Pages made from the code ----------------------------------------------------------------------------------------


def reference() -> ModuleType:
    """The script that makes them."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_what_is_made_from_the_code_is_fresh() -> None:
    """The reference pages, the table of errors and the tables of states say what the code says."""
    made = await asyncio.to_thread(reference().stale)  # it has a loop of its own
    assert [] == made, "run scripts/reference.py"


def test_the_check_for_freshness_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that differs from the code by one character is stale."""
    script = reference()
    fresh = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    monkeypatch.setattr(script, "rendered", lambda: {"docs/reference/errors.md": fresh + "x"})
    assert ["docs/reference/errors.md"] == script.stale()


# Links -----------------------------------------------------------------------------------------------------------


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each link to a file finds it, and each to a part of one finds its heading."""
    broken = []
    for link in _LINK.findall(without_blocks(page)):
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (page.parent / url.path).resolve() if url.path else page
        if not target.exists() or (url.fragment and url.fragment not in anchors(target)):
            broken.append(link)
    assert [] == broken


def test_each_picture_is_shown_and_there() -> None:
    """A page's pictures are in the tree, and each that `make screenshots` makes is on a page."""
    shown = {
        (page.parent / link).resolve()
        for page in pages()
        for link in re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", page.read_text("utf-8"))
    }
    made = set((ROOT / "docs" / "images").iterdir())
    assert len(made) == 4
    assert made <= shown
    assert [] == [path for path in shown if not path.exists()]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, punctuation dropped, hyphens for spaces."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(without_blocks(page)))
    return {heading.strip().replace(" ", "-") for heading in words}


@each_page
def test_named_files_exist(page: Path) -> None:
    """A path of this tree that a page names is there."""
    named = re.findall(r"`((?:src|tests|spec|docs|scripts)/[\w./-]+)`", page.read_text("utf-8"))
    assert [] == [path for path in named if not (ROOT / path).exists()]


def test_the_architecture_names_every_room() -> None:
    """A room or module at the top of the package has its place in the text."""
    package = ROOT / "src" / "oncecast"
    rooms = [f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    rooms += [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert [] == [room for room in sorted(rooms) if f"`{room}`" not in text]


# Blocks that are read --------------------------------------------------------------------------------------------


@each_page
def test_code_blocks_are_well_formed(page: Path, tmp_path: Path) -> None:
    """Python compiles, JSON parses, and TOML is a settings file that the server takes."""
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        if block.language == "python":
            compile(block.text, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            file = tmp_path / "oncecast.toml"
            file.write_text(block.text, "utf-8")
            config.load(file=file, environ={}, flags={})


@each_page
def test_languages_are_known(page: Path) -> None:
    """A block of a language that nothing reads has a mark, or is looked at once."""
    assert [] == [
        (block.line, block.language) for block in blocks(page) if not block.mark and block.language not in READ
    ]


@each_page
def test_marks_are_known(page: Path) -> None:
    """A misspelt mark fails instead of switching its test off."""
    known = re.compile(r"run( stream)?|prints|page|celery|file \S+|front \S+|token|app|socket \S+( \S+)?|begin \w+")
    assert [] == [block.mark for block in blocks(page) if block.mark and not known.fullmatch(block.mark)]


@each_page
def test_what_is_printed_is_printed_by_something(page: Path) -> None:
    """A `prints` stands right after the block that is run, or nothing would compare it."""
    found = blocks(page)
    after = {block.line: before.mark for before, block in itertools.pairwise(found)}
    prints = [block for block in found if block.mark == "prints"]
    assert [] == [block.line for block in prints if not after.get(block.line, "").startswith("run")]


@pytest.mark.parametrize("path", ["README.md", "docs/tutorial.md", "spec/wire.md"])
def test_the_pages_that_are_tried_first_have_examples_that_run(path: str) -> None:
    """The pages that people copy from can't lose their marks unnoticed."""
    assert any(block.mark.startswith("run") for block in blocks(ROOT / path))


# Blocks that are run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [p for p in pages() if any(b.mark for b in blocks(p))], ids=name)
async def test_examples_do_what_they_show(page: Path, tmp_path: Path) -> None:
    """Each marked block of a page works against a live server, and prints what the page says it prints."""
    server = Server(Settings(port=0))
    await server.start()
    try:
        found = blocks(page)
        for block, following in zip(found, [*found[1:], None], strict=True):
            expected = None
            if following is not None and following.mark == "prints":
                expected = [line for line in following.text.splitlines() if line]
            where = f"{name(page)}:{block.line}"
            async with asyncio.timeout(SECONDS):
                if block.mark.startswith("run"):
                    shown = await run(block, server, tmp_path, expected)
                    if expected is not None:
                        assert expected == shown, where
                elif block.mark.startswith("socket"):
                    await talk(block, server, where)
    finally:
        await server.stop()


async def run(block: Block, server: Server, home: Path, expected: list[str] | None) -> list[str]:
    """Run a shell block; return the lines it printed that are not blank. Without `expected`, a 4xx or 5xx fails."""
    (home / ".curlrc").write_text("silent\nshow-error\n" + ("" if expected else "fail-with-body\n"))
    text = block.text.replace(SERVER, f"127.0.0.1:{server.port}")
    environ = {"PATH": os.environ["PATH"], "CURL_HOME": str(home), "HOME": str(home)}
    lines: list[str] = []
    async with bash(text, home, environ, errors=None) as process:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if shown := alike(line.decode().rstrip("\n"), server):
                lines.append(shown)
            if block.mark == "run stream" and len(lines) == len(expected or ("",)):
                return lines
        assert 0 == await process.wait(), block.text
    return lines


async def talk(block: Block, server: Server, where: str) -> None:
    """Play a socket's transcript."""
    _, path, *protocols = block.mark.split()
    url = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(url, subprotocols=[websockets.Subprotocol(p) for p in protocols] or None) as socket:
        for line in block.text.splitlines():
            arrow, _, text = line.partition(" ")
            if arrow == "→":
                await socket.send(text)
            else:
                assert ("←", text) == (arrow, alike(str(await socket.recv()), server)), where


PROGRAMS = [
    pytest.param(block.text, id=f"{name(page)}:{block.line}")
    for page in pages()
    for block in blocks(page)
    if block.language == "python" and not block.mark and SERVER in block.text
]


@pytest.mark.parametrize("text", PROGRAMS)
async def test_programs_run(text: str, tmp_path: Path) -> None:
    """A Python program of a page works as it stands, and says nothing on standard error."""
    server = Server(Settings(port=0))
    await server.start()
    try:
        async with busy(server), asyncio.timeout(SECONDS):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-u", "-c", text.replace(SERVER, f"127.0.0.1:{server.port}")),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                if not await process.stdout.readline():
                    assert 0 == await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                said = await process.stderr.read()
                await process.wait()
    finally:
        await server.stop(0)
    assert "" == said.decode()


def alike(text: str, server: Server) -> str:
    """Put the epoch and the times of the examples into a server's output."""
    text = text.replace(server.node.log.epoch, EPOCH)
    return re.sub(r'"time":[0-9.]+', f'"time":{TIME}', text)


def test_the_examples_parts_are_seen() -> None:
    """A block is found with its mark, its language and its place."""
    page = ROOT / "spec" / "wire.md"
    found: list[Any] = [block for block in blocks(page) if block.mark == "run"]
    assert ("sh", True) == (found[0].language, found[0].text.startswith("curl"))


def test_the_specification_and_the_server_agree_on_retry() -> None:
    """The times of `retry` that the text names are those of the code; the examples show them too."""
    text = (ROOT / "spec" / "wire.md").read_text("utf-8")
    (named,) = re.findall(r"`retry` is ([0-9,]+) ms", text)
    (stopping,) = re.findall(r"a server that stops sends `retry: ([0-9]+)`", text)
    assert (events.RETRY_MS, DRAIN_MS) == (int(named.replace(",", "")), int(stopping))


def test_the_help_and_the_reference_agree_on_the_default_broker() -> None:
    """`serve --help` and the page of settings name what `serve` uses without a flag, and with `--dev`."""
    (option,) = (option for option in serve.params if option.name == "broker")
    shown = " ".join(str(getattr(option, "help", "")).split())
    (row,) = re.findall(r"\| `broker` \| (.*?) \|", (ROOT / "docs/reference/settings.md").read_text("utf-8"))
    for dev in (False, True):
        broker = config.load(file=None, environ={}, flags={"dev": dev or None}).settings.broker
        assert broker in shown
        assert f'`"{broker}"`' in row
