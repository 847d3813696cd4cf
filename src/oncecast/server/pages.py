"""The files of `oncecast/web/start` and `oncecast/web/client`, read once at the start and served from memory.

The JavaScript client is `/oncecast.js`. An installed package has it as one small file, which `scripts/hatch_build.py`
has bundled; a checkout has not, and serves a module that exports those of `/web/client/`. So no step of a build stands
between a change of a module and the browser.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import lru_cache
from importlib import resources

from ..errors import ERRORS
from ..http.documents.asyncapi import ASYNCAPI, asyncapi
from ..http.documents.openapi import OPENAPI, openapi
from ..http.service import Asset
from ..wire.envelope import DOCS_PATH
from .api_page import API_PATH, api_html, prose

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}

PAGES = {"/": "/web/index.html", "/admin": "/web/admin.html", "/compare": "/web/compare.html"}
BUNDLE = "oncecast.js"  # under `web`, in a wheel
MODULES = b'export * from "./web/client/index.js";\n'  # relative, as a proxy may serve all of it below a prefix


def load_pages() -> dict[str, Asset]:
    """Return each page by its path: those of `PAGES` at theirs, the rest under `/web/`.

    The icon stands where browsers look for it too. The JavaScript client is `/oncecast.js`; its sources are the modules
    of `/web/client/`.
    """
    pages = {}
    web = resources.files("oncecast") / "web"
    for path, folder in ("/web/", web / "start"), ("/web/client/", web / "client"):
        for file in folder.iterdir() if folder.is_dir() else ():
            content_type = TYPES.get("." + file.name.rpartition(".")[2])
            if content_type is not None:
                pages[path + file.name] = _page(content_type, file.read_bytes())
    bundle = web / BUNDLE
    if bundle.is_file():
        pages["/oncecast.js"] = _page(TYPES[".js"], bundle.read_bytes())
    elif "/web/client/index.js" in pages:
        pages["/oncecast.js"] = _page(TYPES[".js"], MODULES)
    for page_path, file_path in PAGES.items():
        if file_path in pages:
            pages[page_path] = pages.pop(file_path)
    if "/web/favicon.svg" in pages:
        pages["/favicon.ico"] = pages["/web/favicon.svg"]
    pages[DOCS_PATH.rstrip("#")] = _page(TYPES[".html"], errors_html().encode())
    described, framed = openapi(), asyncapi()
    pages[API_PATH] = _page(TYPES[".html"], api_html(described, framed).encode())
    for document_path, document in (OPENAPI, described), (ASYNCAPI, framed):
        pages[document_path] = _page(TYPES[".json"], json.dumps(document, ensure_ascii=False).encode())
    return pages


def errors_html() -> str:
    """Return the page that every error's `docs` points to, made from the table of errors."""
    rows = "\n".join(
        f'<tr id="{row.code}"><th scope="row"><code>{row.code}</code></th>'
        f'<td data-label="HTTP">{row.status}</td><td data-label="close">{row.close}</td>'
        f'<td data-label="retry helps">{"yes" if row.retry else "no"}</td><td>{prose(row.advice)}</td></tr>'
        for row in ERRORS.values()
    )
    return _ERRORS.format(rows=rows)


@lru_cache(maxsize=64)
def _page(content_type: str, body: bytes) -> Asset:
    gzipped = gzip.compress(body, mtime=0)  # the same bytes from every server
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Asset(content_type, body, tag, gzipped if len(gzipped) < len(body) else b"")


_ERRORS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Errors · Oncecast</title>
<link rel="icon" href="../web/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../web/style.css">
</head>
<body class="document">
<main>
<p><a href="../">Oncecast</a></p>
<h1>Errors</h1>
<p>HTTP answers carry the code in <code>error.code</code>, with the status below. A WebSocket of
<code>oncecast.v1</code> gets an <code>error</code> frame, or, where the connection can't go on, the close code.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">code</th><th scope="col">HTTP</th><th scope="col">close</th>
<th scope="col">retry helps</th><th scope="col">what to do</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</main>
</body>
</html>
"""
