"""JavaScript's text as tokens: each form, and what is none."""

from __future__ import annotations

import pytest

from oncecast.server.tokens import Kind, ScriptError, tokenize


@pytest.mark.parametrize(
    "source, texts",
    [
        ("let a = 1_000 + .5e3 + 2n;", ["let", "a", "=", "1_000", "+", ".5e3", "+", "2n", ";"]),
        ("a /* b */ // c\n b", ["a", "b"]),
        ("'it\\'s' + \"/* no */\"", ["'it\\'s'", "+", '"/* no */"']),
        ("a?.b ?? c ??= d ? .5 : e", ["a", "?.", "b", "??", "c", "??=", "d", "?", ".5", ":", "e"]),
        ("a?.5:b", ["a", "?", ".5", ":", "b"]),
        ("i++ - --j", ["i", "++", "-", "--", "j"]),
        ("x ** 2 >>> 1 <= y => z", ["x", "**", "2", ">>>", "1", "<=", "y", "=>", "z"]),
        ("this.#own = [...rest]", ["this", ".", "#own", "=", "[", "...", "rest", "]"]),
        ("return /[/\\]]\\/`/g.test(a) / b", ["return", "/[/\\]]\\/`/g", ".", "test", "(", "a", ")", "/", "b"]),
        ("`a $ {b} ${ {c: `${d}` } } e` / f", ["`a $ {b} ${", "{", "c", ":", "`${", "d", "}`", "}", "} e`", "/", "f"]),
        ("`${/}/}`", ["`${", "/}/", "}`"]),
        ("/first/", ["/first/"]),
    ],
)
def test_tokens(source: str, texts: list[str]) -> None:
    """Comments and whitespace are left out; nothing in a string, a template or a regex is taken for anything else."""
    assert texts == [token.text for token in tokenize(source)]


def test_kinds() -> None:
    """Each token says what it is."""
    kinds = [token.kind for token in tokenize("a #b 1 'c' = /d/ `e`")]
    assert [Kind.NAME, Kind.PRIVATE, Kind.NUMBER, Kind.STRING, Kind.MARK, Kind.REGEX, Kind.TEMPLATE] == kinds


@pytest.mark.parametrize("source", ["'a\n'", "`a", "`${a", "}", "{", "a @ b", "= /a\n/", "`${ {} `"])
def test_what_is_no_token(source: str) -> None:
    """What is not understood is refused, and so are braces that do not match."""
    with pytest.raises(ScriptError):
        tokenize(source)
