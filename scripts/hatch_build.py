"""The build hook: a wheel has the JavaScript client as one small file, which the server sends as `/oncecast.js`.

`scripts/web` has the tool, esbuild, pinned by npm (`make web` installs it). Where it is installed, the client is
bundled for each sdist and each wheel; a wheel that is built from an sdist takes the sdist's file. Without either a
wheel has the modules alone, which a server serves as well: `pip install .` needs no npm. An editable install never has
the file, so that a checkout cannot serve an old one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLE = "build/web/oncecast.js"  # in a checkout, where git ignores it, and in an sdist
IN_WHEEL = "oncecast/web/oncecast.js"


class ClientHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own files say nothing of the parameter
    """Adds the bundle to what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bundle the client, or take the sdist's; `version` is the kind of build, `standard` or `editable`."""
        root = Path(self.root)
        tools = root / "scripts" / "web"
        if version == "editable":
            return
        if (tools / "node_modules" / ".bin" / "esbuild").exists():
            subprocess.run(["npm", "run", "--silent", "build"], cwd=tools, check=True)  # noqa: S607 - npm is on the PATH
        elif not (root / "PKG-INFO").exists():
            self.app.display_warning("no esbuild in scripts/web: the wheel has the client's modules alone")
            return
        if (root / BUNDLE).is_file():
            build_data["force_include"][BUNDLE] = BUNDLE if self.target_name == "sdist" else IN_WHEEL
