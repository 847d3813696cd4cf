"""The build hook: it adds to a wheel the examples, and the JavaScript client as one small file, which the server sends
as `/oncecast.js`.

`scripts/web` has the tool, esbuild, pinned by npm (`make web` installs it). If it is installed, the client is bundled
for each sdist and each wheel. A wheel that is built from an sdist takes the sdist's file. Without either, a wheel has
only the modules, which a server serves too, so `pip install .` needs no npm. An editable install never has the file, so
that a checkout can't serve an old one.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IN_SDIST = "build/web/oncecast.js"  # git ignores it
IN_WHEEL = "oncecast/web/oncecast.js"
EXAMPLES = "examples"  # `oncecast demo` runs them
NOT_EXAMPLES = {"__pycache__", "node_modules"}


class ClientHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own files say nothing of the parameter
    """Adds the bundle to the files of a build."""

    made: tempfile.TemporaryDirectory[str] | None = None  # several builds may run at once

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bundle the client, or take the sdist's; `version` is the kind of build, `standard` or `editable`."""
        root = Path(self.root)
        tools = root / "scripts" / "web"
        if version == "editable":
            return
        if self.target_name == "wheel":
            build_data["force_include"].update(examples(root))
        if (tools / "node_modules" / ".bin" / "esbuild").exists():
            self.made = tempfile.TemporaryDirectory()
            bundle = Path(self.made.name) / "oncecast.js"
            command = ["npm", "run", "--silent", "build", "--", f"--outfile={bundle}"]
            subprocess.run(command, cwd=tools, check=True)
        elif (root / "PKG-INFO").exists() and (root / IN_SDIST).is_file():
            bundle = root / IN_SDIST
        else:
            self.app.display_warning("no esbuild in scripts/web: the wheel has the client's modules alone")
            return
        build_data["force_include"][str(bundle)] = IN_SDIST if self.target_name == "sdist" else IN_WHEEL

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary bundle."""
        if self.made is not None:
            self.made.cleanup()


def examples(root: Path) -> dict[str, str]:
    """Return each file of the examples in the tree at `root`, with its place in the wheel."""
    files = [path.relative_to(root) for path in sorted((root / EXAMPLES).rglob("*")) if path.is_file()]
    return {str(root / file): f"oncecast/{file.as_posix()}" for file in files if NOT_EXAMPLES.isdisjoint(file.parts)}
