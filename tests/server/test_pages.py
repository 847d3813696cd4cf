"""The pages that are served from memory."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from oncecast.errors import ERRORS
from oncecast.server import pages as module
from oncecast.server.pages import errors_html, load_pages


class Rows(HTMLParser):
    """Collects the ids of table rows, and the tags that are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr" and dict(attrs).get("id"):
            self.ids.append(dict(attrs)["id"])
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()


MADE = {"/docs/errors", "/docs/api", "/v1/openapi.json", "/v1/asyncapi.json"}  # from the code


def test_every_error_has_its_row() -> None:
    """The page that errors point to has a target for each code, and well-formed HTML."""
    rows = Rows()
    rows.feed(errors_html())
    assert list(ERRORS) == rows.ids
    assert [] == rows.open


def test_an_errors_row() -> None:
    """A row says of each cell what it is, for windows too narrow for a table, and its code is code."""
    (row,) = [line for line in errors_html().splitlines() if 'id="event_invalid"' in line]
    assert ["HTTP", "close", "retry helps"] == re.findall('data-label="([^"]+)"', row)
    assert "<code>gap</code>" in row
    assert "`" not in errors_html()


def test_pages_have_types_and_strong_tags() -> None:
    """Each page has a Content-Type that a browser takes, and a quoted tag of its contents."""
    pages = load_pages()
    assert pages["/docs/errors"].body == errors_html().encode()
    # Behind a proxy the page may have a prefix in front of its path, so its links are relative.
    assert [] == re.findall(r'(?:href|src)="/', errors_html())
    for page in pages.values():
        assert page.content_type in module.TYPES.values()
        assert page.etag.startswith('"')
        assert page.etag.endswith('"')
    assert len({page.body for page in pages.values()}) == len({page.etag for page in pages.values()})


def test_files_and_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages stand at the root, the icon where browsers look too; the rest is not served."""
    folder = tmp_path / "web" / "start"
    folder.mkdir(parents=True)
    pages_and_parts = ("index.html", "admin.html", "compare.html", "favicon.svg", "a.js", "b.css")
    for name in (*pages_and_parts, "__init__.py", "secret.txt", "noextension"):
        (folder / name).write_text(name)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    pages = load_pages()
    assert {"/", "/admin", "/compare", "/favicon.ico", "/web/favicon.svg", "/web/a.js", "/web/b.css"} | MADE == set(
        pages
    )
    assert (b"index.html", "text/javascript; charset=utf-8") == (pages["/"].body, pages["/web/a.js"].content_type)


def test_a_page_is_compressed_where_that_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has its compressed form ready, unless that is no smaller."""
    folder = tmp_path / "web" / "start"
    folder.mkdir(parents=True)
    for name, text in ("long.css", "a" * 1000), ("short.css", "a"):
        (folder / name).write_text(text)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    pages = load_pages()
    assert b"" == pages["/web/short.css"].gzipped
    assert pages["/web/long.css"].body == gzip.decompress(pages["/web/long.css"].gzipped)


def test_the_client_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bundle the modules are served as they are, and `/oncecast.js` exports them by a relative URL."""
    folder = tmp_path / "web" / "client"
    folder.mkdir(parents=True)
    (folder / "index.js").write_text("export const two = 2; // the first\n")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    pages = load_pages()
    assert b"export const two = 2; // the first\n" == pages["/web/client/index.js"].body
    assert b'export * from "./web/client/index.js";\n' == pages["/oncecast.js"].body


def test_the_client_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is served as it is, at `/oncecast.js` alone, and the modules beside it."""
    folder = tmp_path / "web" / "client"
    folder.mkdir(parents=True)
    (folder / "index.js").write_text("export const two = 2;\n")
    (tmp_path / "web" / "oncecast.js").write_text("const t=2;export{t as two};")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    pages = load_pages()
    assert b"const t=2;export{t as two};" == pages["/oncecast.js"].body
    assert {"/oncecast.js", "/web/client/index.js"} | MADE == set(pages)


def test_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any file what is made from the code is still there."""
    (tmp_path / "web").mkdir()
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    assert set(load_pages()) == MADE
