"""The build hook: it adds to a wheel the examples, and two bundles: the JavaScript client as one small file, which the
server sends as `/oncecast.js`, and Yjs for the editor of the examples.

`scripts/web` has the tool, esbuild, and Yjs, pinned by npm (`make web` installs them). If they are installed, both are
bundled for each sdist and each wheel. A wheel that is built from an sdist takes the sdist's files. Without either, a
wheel has only the client's modules, which a server serves too, so `pip install .` needs no npm, and an editor that says
what it lacks. An editable install never has the files, so that a checkout can't serve an old client.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLES = {  # npm's script, the place in an sdist, which git ignores, and the place in a wheel
    "build": ("build/web/oncecast.js", "oncecast/web/oncecast.js"),
    "yjs": ("build/web/yjs.js", "oncecast/examples/editor/page/yjs.js"),
}
EXAMPLES = "examples"  # `oncecast demo` runs them
YJS_OF_A_CHECKOUT = Path("examples/editor/page/yjs.js")  # it may be an old one
NOT_EXAMPLES = {"__pycache__", "node_modules"}


class ClientHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own files say nothing of the parameter
    """Adds the bundles to the files of a build."""

    made: tempfile.TemporaryDirectory[str] | None = None  # several builds may run at once

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the bundles, or take the sdist's; `version` is the kind of build, `standard` or `editable`."""
        root = Path(self.root)
        tools = root / "scripts" / "web"
        if version == "editable":
            return
        if self.target_name == "wheel":
            build_data["force_include"].update(examples(root))
        if (tools / "node_modules" / ".bin" / "esbuild").exists():
            self.made = tempfile.TemporaryDirectory()
        for script, (in_sdist, in_wheel) in BUNDLES.items():
            if self.made is not None:
                bundle = Path(self.made.name) / Path(in_sdist).name
                command = ["npm", "run", "--silent", script, "--", f"--outfile={bundle}"]
                subprocess.run(command, cwd=tools, check=True)
            elif (root / "PKG-INFO").exists() and (root / in_sdist).is_file():
                bundle = root / in_sdist
            else:
                self.app.display_warning(f"no esbuild in scripts/web: the {self.target_name} is without {in_sdist}")
                continue
            build_data["force_include"][str(bundle)] = in_sdist if self.target_name == "sdist" else in_wheel

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary bundles."""
        if self.made is not None:
            self.made.cleanup()


def examples(root: Path) -> dict[str, str]:
    """Return each file of the examples in the tree at `root`, with its place in the wheel."""
    files = {path.relative_to(root) for path in (root / EXAMPLES).rglob("*") if path.is_file()} - {YJS_OF_A_CHECKOUT}
    kept = sorted(file for file in files if NOT_EXAMPLES.isdisjoint(file.parts))
    return {str(root / file): f"oncecast/{file.as_posix()}" for file in kept}
