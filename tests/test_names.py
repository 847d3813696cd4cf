"""A type has one name in the whole package, and a name has one type: classes and aliases of types."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

PACKAGE = Path(__file__).parents[1] / "src/oncecast"

# Names that more than one module defines, each with the reason.
SHARED = {
    "T": "a type variable, private to its module",
}


def test_each_type_is_defined_once() -> None:
    """No two modules define a class, or an alias of a type, of one name, except those of the table."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in types_of(path.read_text()):
            homes[name].append(str(path.relative_to(PACKAGE)))
    twice = {name: found for name, found in homes.items() if len(found) > 1}
    assert {} == {name: found for name, found in twice.items() if name not in SHARED}, "rename one, or say why not"
    assert SHARED.keys() <= twice.keys(), "the table has a name that is defined once"


def test_what_counts_as_a_type() -> None:
    """Nested classes and a module's aliases count; constants, other values and the variables of functions do not."""
    text = """
        class Outer:
            class Inner: ...
        Alias = dict[str, int]
        Annotated: object = None
        T = TypeVar("T")
        LIMIT = 7
        lower = Outer
        def make():
            class Local: ...
            Variable = Local
    """
    assert ["Outer", "Inner", "Alias", "Annotated", "T", "Local"] == list(types_of(dedent(text)))


def types_of(text: str) -> Iterator[str]:
    """Yield the names of the classes and of the module's aliases, in their order."""
    for top in ast.parse(text).body:
        yield from (node.name for node in ast.walk(top) if isinstance(node, ast.ClassDef))
        targets = top.targets if isinstance(top, ast.Assign) else [top.target] if isinstance(top, ast.AnnAssign) else []
        names = (target.id for target in targets if isinstance(target, ast.Name))
        yield from (name for name in names if name[0].isupper() and (len(name) == 1 or not name.isupper()))
