"""The modules of a client as one: what it says and exports is what they did, in fewer bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from oncecast.server.script import ScriptError, join

WORDS = """
/** What both modules need. */
export const GREETING = "hello"; // with a comment
export function greet(name, { mark = "!" } = {}) {
  return `${GREETING}, ${name}${mark}`;
}
"""
ENTRY = """
import { greet } from "./words.js";
import {
  GREETING,
} from "./words.js";

const SLOW_MS = 60_000;

class Counter {
  #count = 0;
  static of = (count) => new Counter(count);
  constructor(count) {
    this.#count = count;
  }
  get next() {
    return (this.#count += 1);
  }
  *[Symbol.iterator]() {
    for (let left = this.#count; left > 0; left -= 1) yield left;
  }
}

const drain = (list) => {
  while (list.pop());
  return list.length;
};

export const tell = async (names, mark) => {
  const lines = [];
  const counter = Counter.of(1);
  for (const name of names) if (name) lines.push(greet(name, { mark })); else lines.push(null);
  for await (const item of [1, Promise.resolve(2)]) lines.push(item - -1 + +item);
  try {
    throw new Error(GREETING);
  } catch ({ message }) {
    lines.push(message.replace(/[l/]/g, "L"), counter.next, [...counter], true, { false: false }.false);
  }
  const {
    length,
  } = names;
  const ends = drain([1, 2,]);
  if (length > 1)
    lines.push(length, SLOW_MS, ends);
  return lines;
};
"""
SOURCES = {"entry.js": ENTRY, "words.js": WORDS}


def said(folder: Path) -> str:
    """What the module in a folder says in Node."""
    program = shutil.which("node")
    assert program is not None
    script = """
    const module = await import("./entry.js");
    console.log(JSON.stringify([await module.tell(["a", "", "b"]), Object.keys(module)]));
    """
    return subprocess.run(
        [program, "--input-type=module", "-e", script], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_it_means_the_same(tmp_path: Path) -> None:
    """In Node, the one module returns and exports what the two did."""
    told = []
    for name, sources in ("before", SOURCES), ("after", {"entry.js": join(SOURCES, "entry.js")}):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "package.json").write_text('{"type": "module"}')
        for file, text in sources.items():
            (folder / file).write_text(text)
        told.append(said(folder))
    assert told[0] == told[1]
    assert told[0].startswith('[["hello, a!",null,"hello, b!",3,5,"heLLo"')


def test_what_it_looks_like() -> None:
    """No comment, no space that is not needed, no last comma or semicolon, one declaration for those in a row."""
    source = """
    export const one = (only) => {
      const cast = /** @type {any} */ (only);
      const two = [only, 1_000,];
      return cast + two;
    };
    """
    assert "export let one=t=>{let e=t,n=[t,1e3];return e+n};\n" == join({"a.js": source}, "a.js")


@pytest.mark.parametrize(
    "source",
    [
        'import * as all from "./b.js";',
        'import { a as b } from "./b.js";',
        'import { a } from "elsewhere";',
        "const a = 1;\nimport { b } from './b.js';",
        "const a = await import('./b.js');",
    ],
)
def test_imports_of_another_form(source: str) -> None:
    """What is not `import { names } from "./file.js"`, at the top, is refused."""
    with pytest.raises(ScriptError):
        join({"a.js": source, "b.js": "export const a = 1;"}, "a.js")


def test_two_modules_with_one_name() -> None:
    """What two modules call the same can't stand in one."""
    sources = {
        "a.js": 'import { b } from "./b.js"; const c = b; export const d = c;',
        "b.js": "const c = 1; export const b = c;",
    }
    with pytest.raises(ScriptError, match="two modules"):
        join(sources, "a.js")
