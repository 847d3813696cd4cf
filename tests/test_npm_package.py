"""The package for npm, installed from its tarball: in Node, in two bundlers, and under TypeScript's strict rules."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

import oncecast
from tests.fronts_rig import CLIENT, PEERS, ROOT, install, run

HERE = Path(__file__).parent
ESBUILD = ROOT / "scripts" / "web" / "node_modules" / ".bin" / "esbuild"
BINDINGS = ("react", "svelte", "vue")
NAMES = {
    "oncecast": ["Refused", "connect"],
    "oncecast/react": ["ClientProvider", "setClient", "useChannel", "useClient"],
    "oncecast/svelte": ["channel", "getClient", "setClient"],
    "oncecast/vue": ["clientKey", "setClient", "useChannel", "useClient"],
}
MOST_BYTES = 1_792  # of one binding, with what all share, without the client

ROLLUP = """
import commonjs from "@rollup/plugin-commonjs";
import { nodeResolve } from "@rollup/plugin-node-resolve";

export default {
  plugins: [nodeResolve({ browser: true }), commonjs()],
  external: (id) => /^(react|vue)$/.test(id),
  onwarn: (warning) => {
    if (warning.code !== "MODULE_LEVEL_DIRECTIVE") throw new Error(warning.message);
  },
};
"""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application that has the package, and the frameworks that the package works with."""
    return install(tmp_path_factory.mktemp("npm"))


def files(folder: Path) -> set[str]:
    """The files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_package_for_npm(application: Path) -> None:
    """The tarball has this version, the modules, the public types, a README and the licence, and nothing else."""
    package = application / "node_modules" / "oncecast"
    described = json.loads((package / "package.json").read_text("utf-8"))
    assert oncecast.__version__ == described["version"]
    assert "dependencies" not in described
    assert {name: {"optional": True} for name in BINDINGS} == described["peerDependenciesMeta"]
    assert set(BINDINGS) == set(described["peerDependencies"])
    expected = {"README.md", "LICENSE", "package.json", "types.d.ts", *(path.name for path in CLIENT.glob("*.js"))}
    assert expected | {f"bindings/{name}" for name in files(CLIENT / "bindings")} == files(package)
    assert (ROOT / "LICENSE").read_bytes() == (package / "LICENSE").read_bytes()
    targets = [target for export in described["exports"].values() for target in export.values()]
    assert [] == [target for target in (described["types"], *targets) if not (package / target).is_file()]
    assert set(NAMES) == {f"oncecast{name[1:]}" for name in described["exports"]}


def test_no_framework_is_installed_for_an_application_without_one(application: Path) -> None:
    """npm installs the package alone: the frameworks are what the application has itself."""
    lock = json.loads((application / "package-lock.json").read_text("utf-8"))
    assert {"", "node_modules/oncecast"} == set(lock["packages"])


def exported(application: Path, modules: Mapping[str, str]) -> dict[str, list[str]]:
    """What each of these modules exports, as Node imports them."""
    script = f"""
    const found = {{}};
    for (const [name, module] of Object.entries({json.dumps(modules)})) {{
      found[name] = Object.keys(await import(module)).sort();
    }}
    console.log(JSON.stringify(found));
    """
    (application / "imports.mjs").write_text(script)
    found: dict[str, list[str]] = json.loads(run("node", "imports.mjs", cwd=application))
    return found


def test_an_import_in_node(application: Path) -> None:
    """Node imports each entry, which exports what its types say; nothing is connected, and Node ends."""
    assert NAMES == exported(application, {name: name for name in NAMES})


def test_a_page_that_is_made_on_a_server(application: Path) -> None:
    """Each binding renders an idle channel where there is no document: nothing is connected, and Node ends."""
    shutil.copy(HERE / "js" / "rendered.mjs", application)
    assert dict.fromkeys(BINDINGS, "idle 0") == json.loads(run("node", "rendered.mjs", cwd=application))


@pytest.mark.parametrize("bundler", ["esbuild", "rollup"])
def test_an_import_in_a_bundler(application: Path, bundler: str) -> None:
    """A bundler takes each entry without a warning, and what it makes exports the same names."""
    entries = {name: application / f"{name.replace('/', '-')}.mjs" for name in NAMES}
    for name, entry in entries.items():
        entry.write_text(f"export * from {json.dumps(name)};\n")
    paths = [str(entry) for entry in entries.values()]
    output = application / bundler
    if bundler == "esbuild":
        options = ["--bundle", "--splitting", "--format=esm", "--log-level=warning", f"--outdir={output}"]
        run(str(ESBUILD), *paths, *options, "--out-extension:.js=.mjs", "--external:react", cwd=application)
    else:
        (application / "rollup.config.mjs").write_text(ROLLUP)
        options = ["--config", "rollup.config.mjs", "--dir", str(output), "--entryFileNames", "[name].mjs"]
        run(str(PEERS / ".bin" / "rollup"), *options, *paths, cwd=application)
    made = {name: f"./{bundler}/{entry.name}" for name, entry in entries.items()}
    assert NAMES == exported(application, made)


@pytest.mark.parametrize("name", BINDINGS)
def test_a_binding_is_small(application: Path, name: str) -> None:
    """What a binding adds to the client in a page, as it goes over the wire, is little."""
    (application / "small.js").write_text(f'export * from "oncecast/{name}"; export * from "oncecast";')
    (application / "alone.js").write_text('export * from "oncecast";')
    options = ["--bundle", "--minify", "--format=esm", "--external:react", "--external:vue"]
    made = [run(str(ESBUILD), entry, *options, cwd=application) for entry in ("small.js", "alone.js")]
    small, alone = (len(gzip.compress(text.encode(), mtime=0)) for text in made)
    assert small - alone <= MOST_BYTES


def test_the_types_of_the_package(application: Path) -> None:
    """An application is checked against the package alone, with `strict`."""
    names = ["application.mts", "react.mts", "svelte.mts", "vue.mts"]
    for name in names:
        shutil.copy(HERE / "js" / name, application)
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    libraries = "es2023,dom,dom.iterable,dom.asynciterable"
    run(str(PEERS / ".bin" / "tsc"), *options, "--lib", libraries, *names, cwd=application)


def test_the_inner_types_are_not_public() -> None:
    """The names of the client's inner parts are none of the application's."""
    exported = (CLIENT / "types.d.ts").read_text("utf-8")
    assert not {"Feed", "Link", "Host", "Net", "Failure"} & set(re.findall(r"export (?:\w+ )+(\w+)", exported))
