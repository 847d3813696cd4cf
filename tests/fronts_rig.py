"""What the tests of front ends share: the npm package, installed in an application, and applications in a page.

The frameworks are linked into the application from `tests/peers`.
Invariant: a `Lab` is on a page of its server, so that its tabs can share a connection, and its script is the test's.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page

HERE = Path(__file__).parent
ROOT = HERE.parent
CLIENT = ROOT / "src" / "oncecast" / "web" / "client"
PEERS = HERE / "peers" / "node_modules"
SECONDS = 120.0  # for one program; the slowest takes a few
PATIENCE_MS = 30_000
PAGE = "docs/errors"  # a real page of the server: a browser may bar others from the machine that it runs on
BEGIN = """
async (options) => {
  Object.assign(globalThis, { options, sockets: new Set(), sent: [] });
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (text) {
    sockets.add(this);
    sent.push(JSON.parse(text).type);
    return send.call(this, text);
  };
  document.body.innerHTML = "<main></main>";
  await import("/lab.js");
}
"""


def run(*command: str, cwd: Path) -> str:
    """Run a program, which has to succeed; return what it printed."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return ended.stdout


def install(place: Path) -> Path:
    """Make an application in `place` whose `node_modules` have the package from its tarball, and the frameworks."""
    (packed,) = json.loads(run("npm", "pack", "--json", f"--pack-destination={place}", cwd=CLIENT))
    application = place / "application"
    application.mkdir()
    (application / "package.json").write_text('{"name": "application", "private": true, "type": "module"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", str(place / packed["filename"]), cwd=application)
    link(application / "node_modules")
    return application


def link(modules: Path) -> None:
    """Put the frameworks into an application's `node_modules`."""
    for folder in PEERS.iterdir():
        if not folder.name.startswith("."):
            (modules / folder.name).symlink_to(folder)


def checkout(place: Path) -> Path:
    """Make an application in `place` with the package of the tree, the frameworks, and the files of `fronts`."""
    modules = place / "node_modules"
    modules.mkdir()
    (modules / "oncecast").symlink_to(CLIENT)
    link(modules)
    shutil.copytree(HERE / "web" / "fronts", place, dirs_exist_ok=True)
    return place


def example(page: str, name: str) -> str:
    """Return the example of that name in a page of the documentation: the block below `<!-- front NAME -->`."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    (found,) = re.findall(rf"^<!-- front {re.escape(name)} -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def bundle(application: Path, entry: str, version: str = "") -> str:
    """Return a bundle of one of the application's files; `version` names an older framework, like `react-18`."""
    output = application / "built" / f"{version}{entry}.js"
    run(
        "node",
        str(HERE / "web" / "fronts" / "build.mjs"),
        entry,
        str(output),
        str(application),
        version,
        cwd=application,
    )
    return output.read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Lab:
    """An application in a tab."""

    page: Page

    @classmethod
    async def begin(cls, page: Page, url: str, script: str, options: object = None) -> Lab:
        """Run a script on a page of the server at `url`, with `options` for its client."""
        await page.route("**/lab.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
        await page.goto(url + PAGE)
        await page.evaluate(BEGIN, options or {})
        return cls(page)

    @classmethod
    async def open(cls, page: Page, url: str, script: str, options: object = None) -> Lab:
        """Open the application on a page of the server at `url`, whose client has these options."""
        lab = await cls.begin(page, url, script, options)
        await page.wait_for_function("() => globalThis.show", timeout=PATIENCE_MS)
        return lab

    async def sent(self) -> list[str]:
        """The types of the frames that it has sent, on all of its WebSockets."""
        found: list[str] = await self.page.evaluate("sent")
        return found

    async def sockets(self) -> int:
        """How many WebSockets it has used."""
        found: int = await self.page.evaluate("sockets.size")
        return found

    async def show(self, *views: dict[str, Any]) -> None:
        """Mount these views, and unmount those that there were beyond them."""
        await self.page.evaluate("(views) => { show(views); }", list(views))

    async def shows(self, **expected: object) -> dict[str, Any]:
        """Wait until each view shows these values; return all that the first one shows."""
        condition = """
        (expected) => {
          const shown = [...document.querySelectorAll("pre")].map((view) => JSON.parse(view.textContent));
          const same = (view, name) => JSON.stringify(view[name]) === JSON.stringify(expected[name]);
          return shown.length && shown.every((view) => Object.keys(expected).every((name) => same(view, name)));
        }
        """
        try:
            await self.page.wait_for_function(condition, arg=expected, timeout=PATIENCE_MS)
        except Exception as error:
            error.add_note(f"It shows {await self.page.locator('main').inner_text()}, not {expected}")
            raise
        found: dict[str, Any] = json.loads(await self.page.locator("pre").first.inner_text())
        return found
