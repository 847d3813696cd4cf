"""What `mkdocs.yml` needs beside the pages: the tree of the site, in a folder beside the site itself.

Owns that folder. The pages stand in it where they stand in this tree, so a relative link leads to the same thing here
and on the site. What is no page here, a folder or a file of another kind, is none on the site either: each folder of
`FOLDERS` becomes a page that shows its files, and a link to one of them leads to its heading there.

To publish more of the tree, add it to `PAGES` or `FOLDERS`. MkDocs calls `on_config`, first of all.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*.md", "spec/*.md", "deploy/**/*.md", "examples/*/README.md")
FOLDERS = ("deploy", "spec/vectors")  # with the folders in them
COPIED = ("docs/explanation/soak.svg", "docs/images/*.png", "docs/site.css", "src/oncecast/web/start/favicon.svg")
SHOWN_BYTES = 24_000  # a longer file is a link: nobody reads it on a page
LANGUAGES = {  # by name, or by how it ends
    ".json": "json",
    ".service": "ini",
    ".socket": "ini",
    ".yaml": "yaml",
    ".yml": "yaml",
    "Dockerfile": "docker",
    "httpd.conf": "apache",
    "nginx.conf": "nginx",
}
INDEX = "index.md"

_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def on_config(config: Any) -> Any:
    """Lay out the site's tree, and have MkDocs read that."""
    place = Path(f"{config.site_dir}.pages")  # beside the site, so that two builds do not meet
    lay_out(place)
    config.docs_dir = str(place)
    return config


def lay_out(place: Path) -> None:
    """Make `place` the tree of the site."""
    shutil.rmtree(place, ignore_errors=True)
    folders = sorted({folder for name in FOLDERS for folder in folders_of(ROOT / name)})
    for page in sorted({page for pattern in PAGES for page in ROOT.glob(pattern)}):
        write(place, page.relative_to(ROOT), led(page.read_text("utf-8"), page, folders))
    for folder in folders:
        write(place, folder.relative_to(ROOT) / INDEX, shown(folder))
        for file in files_of(folder):
            copy(place, file)
    for file in (file for pattern in COPIED for file in ROOT.glob(pattern)):
        copy(place, file)
    licence = (ROOT / "LICENSE").read_text("utf-8")
    write(place, Path("LICENSE.md"), f"# Licence\n\n```text\n{licence}```\n")


def led(text: str, page: Path, folders: list[Path]) -> str:
    """The text of a page, with its links to what is no page leading to the page of a folder instead."""

    def leads(found: re.Match[str]) -> str:
        url = urlsplit(found[1])
        target = (page.parent / url.path).resolve()
        if url.scheme or url.netloc or not url.path or target.suffix == ".md":
            return found[1]
        if target == ROOT / "LICENSE":
            return relative(ROOT / "LICENSE.md", page)
        if target in folders:
            return relative(target / INDEX, page)
        if target.parent in folders and target.is_file():
            return f"{relative(target.parent / INDEX, page)}#{anchor(target.name)}"
        return found[1]  # MkDocs says that it leads nowhere

    return _LINK.sub(leads, text)


def shown(folder: Path) -> str:
    """The page of a folder: each of its files under a heading, whole unless it is long."""
    text = f"# {folder.relative_to(ROOT).as_posix()}\n\n"
    inner = [f"[{path.name}]({path.name}/{INDEX})" for path in sorted(folder.iterdir()) if path.is_dir()]
    text += f"Folders: {', '.join(inner)}.\n\n" if inner else ""
    for file in files_of(folder):
        text += f"## {file.name}\n\n[The file alone]({file.name}).\n\n"
        if file.stat().st_size <= SHOWN_BYTES:
            language = LANGUAGES.get(file.name) or LANGUAGES.get(file.suffix, "text")
            text += f"````{language}\n{file.read_text('utf-8').rstrip()}\n````\n\n"
    return text


def folders_of(folder: Path) -> list[Path]:
    """A folder and those in it."""
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are no pages."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".md"]


def anchor(heading: str) -> str:
    """The anchor of a heading, as `toc` in mkdocs.yml makes it."""
    return re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


def relative(target: Path, page: Path) -> str:
    """The link from a page to a target."""
    return Path(os.path.relpath(target, page.parent)).as_posix()


def write(place: Path, name: Path, text: str) -> None:
    """Write a page of the site."""
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text, "utf-8")


def copy(place: Path, file: Path) -> None:
    """Have a file on the site as it is."""
    target = place / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
