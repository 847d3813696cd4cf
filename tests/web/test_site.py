"""The docs as a site: no warning in its build, each page in its navigation, Markdown read, a search that works."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
import pytest_asyncio

from tests.web.conftest import Visiting

ROOT = Path(__file__).parent.parent.parent
SECONDS = 120  # for a build of three seconds, on a busy machine

_CODE = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.DOTALL)
_ASKED = re.compile(r"<(?:script|img|link|iframe|source|video)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]+)")
# What Markdown's marks look like where they were not understood: a list in a paragraph, a row, a fence, a link, bold.
_UNREAD = re.compile(r"<p>[^<]*\n(?:[-*] |\d+\. |\|)|```|\]\([\w./#]|\*\*\w|&lt;!--")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.fail("MkDocs is not in this environment: run `make .make/docs`")
    place = tmp_path_factory.mktemp("docs") / "site"
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert (0, []) == (ended.returncode, re.findall(r"^(?!INFO\b).+", ended.stdout, re.MULTILINE))
    return place


@pytest_asyncio.fixture(loop_scope="session")
async def address(site: Path) -> AsyncIterator[str]:
    """The address of a server of files, as `make docs` names one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(SECONDS)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def hook() -> ModuleType:
    """The script that lays the pages out."""
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "scripts" / "site_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_every_page(site: Path) -> None:
    """Each page of the docs, the project and the specification is on the site, and once in its navigation."""
    named = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = [path.relative_to(ROOT).as_posix() for pattern in hook().PAGES for path in ROOT.glob(pattern)]
    assert "docs/tutorial.md" in pages
    assert sorted(set(named)) == sorted(named)
    assert set() == set(pages) - set(named)
    folders = [Path(name).parent if name.endswith("README.md") else Path(name).with_suffix("") for name in pages]
    places = [site / folder / "index.html" for folder in folders]
    assert [] == [place for place in places if not place.is_file()]


def test_markdown_is_read_on_the_site_as_in_the_repository(site: Path) -> None:
    """No list, table, block or link stands on a page as it was typed: the two readers of Markdown differ in these."""
    unread = {
        page.relative_to(site).as_posix(): found
        for page in site.rglob("*.html")
        if (found := _UNREAD.findall(_CODE.sub("", page.read_text("utf-8"))))
    }
    assert {} == unread


@pytest.mark.parametrize("text", ["<p>These:\n- one</p>", "<p>| a\n| b</p>", "<p>[x](y.md)</p>", "<p>```sh</p>"])
def test_unread_markdown_is_seen(text: str) -> None:
    """The check above can fail."""
    assert _UNREAD.search(text)


def test_no_page_names_another_host_to_load_from(site: Path) -> None:
    """Fonts, icons and scripts come from the site itself, on every page."""
    named = {
        page.relative_to(site).as_posix(): found
        for page in site.rglob("*.html")
        if (found := _ASKED.findall(page.read_text("utf-8")))
    }
    assert {} == named


def test_links_to_files_lead_to_their_headings() -> None:
    """A link to a folder or a file that is no page leads to the page that shows it; any other link stays as it is."""
    script = hook()
    page = ROOT / "docs" / "how-to" / "example.md"
    folders = [ROOT / "deploy" / "proxies"]
    expected = {
        "../../deploy/proxies": "../../deploy/proxies/index.md",
        "../../deploy/proxies/nginx.conf": "../../deploy/proxies/index.md#nginxconf",
        "../../LICENSE": "../../LICENSE.md",
        "../../spec/wire.md#gaps": "../../spec/wire.md#gaps",
        "#here": "#here",
        "https://rt.example/deploy/proxies": "https://rt.example/deploy/proxies",
        "../../deploy/proxies/missing.conf": "../../deploy/proxies/missing.conf",
    }
    text = "".join(f"[x]({link})\n" for link in expected)
    assert "".join(f"[x]({link})\n" for link in expected.values()) == script.led(text, page, folders)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("scheme, width", [("light", 390), ("dark", 1280)])
async def test_a_reader_finds_a_word(address: str, visit: Visiting, scheme: str, width: int) -> None:
    """The search finds a word on a phone and on a wide screen, with no request to another host."""
    asked: list[str] = []
    seen = await visit(f"{address}/docs/how-to/redis/", color_scheme=scheme, viewport={"width": width, "height": 800})
    page = seen.page
    page.on("request", lambda request: asked.append(request.url))
    await page.reload()
    shown = await page.evaluate("document.body.dataset.mdColorScheme")
    assert {"light": "default", "dark": "slate"}[scheme] == shown
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if width < 1000:
        await page.locator("label[for=__search].md-header__button").click()
    await page.locator("input.md-search__input").press_sequentially("heartbeats")  # the page listens for keys
    await page.locator(".md-search-result__link[href*='spec/wire/']").first.wait_for()
    assert [] == [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))]
