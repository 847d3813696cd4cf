"""Short names: each use still leads to its declaration, and what is not ours to rename is not renamed."""

from __future__ import annotations

import pytest

from oncecast.server.names import shorten
from oncecast.server.tokens import ScriptError, tokenize


def short(source: str) -> str:
    """The source with short names, a space between each two tokens."""
    return " ".join(token.text for token in shorten(tokenize(source)))


def spaced(source: str) -> str:
    """The source's tokens, with a space between each two."""
    return " ".join(token.text for token in tokenize(source))


@pytest.mark.parametrize(
    "source, expected",
    [
        ("const first = 1; first + first;", "const t = 1; t + t;"),
        ("let one = 1, two = one; use(two);", "let t = 1, e = t; use(e);"),
        (
            "const { key, other: value = key, ...rest } = it; f(rest);",
            "const { key:t, other: n = t, ...e } = it; f(e);",
        ),
        ("const [, one, [two] = []] = it; f(two, two);", "const [, e, [t] = []] = it; f(t, t);"),
        (
            "function add(left, right) { return { left, sum: left + right }; }",
            "function t(t, e) { return { left:t, sum: t + e }; }",
        ),
        (
            "const f = (a1, { b1 } = {}) => a1 ? b1 : g; f(h, a1 => a1);",
            "const t = (t, { b1:e } = {}) => t ? e : g; t(h, t => t);",
        ),
        ("try { go(); } catch (error) { show(error); } catch { }", "try { go(); } catch (t) { show(t); } catch { }"),
        (
            "for (const item of list) if (item) use(item); else drop(item);",
            "for (const t of list) if (t) use(t); else drop(t);",
        ),
        ("for (const item of list) { use(item); }", "for (const t of list) { use(t); }"),
        ("for await (const item of list) { use(item); }", "for await (const t of list) { use(t); }"),
        ("for await (const item of list) use(item);", "for await (const t of list) use(t);"),
        (
            "class Node { #next = null; next() { return this.#next; } } new Node();",
            "class t { #t = null; next() { return this.#t; } } new t();",
        ),
        (
            "const o = { get size() { return 1; }, async go(steps) { await steps; } }; o.o(o);",
            "const t = { get size() { return 1; }, async go(t) { await t; } }; t.o(t);",
        ),
        ("const name = `${other} ${((one) => one)(1)}`; name;", "const t = `${other} ${((t) => t)(1)}`; t;"),
        ("async function* each() { } each();", "async function* t() { } t();"),
        ("export const start = 1; start;", "export const start = 1; start;"),
        ("f((one) => `${one}-${two}-` + one, one2 => 1);", "f((t) => `${t}-${two}-` + t, t => 1);"),
        ("f(a ? (one) => one : two, (one) => (one ? b : one));", "f(a ? (t) => t : two, (t) => (t ? b : t));"),
        ("f((one) => one ? b : one);", "f((t) => t ? b : t);"),
        ("for (const one of a) f(`${one}${one}`); f(one2);", "for (const t of a) f(`${t}${t}`); f(one2);"),
        (
            "for (const one of a) if (one) { f(one); } else { g(one); } h();",
            "for (const t of a) if (t) { f(t); } else { g(t); } h();",
        ),
        ("for (const one of a) while (one) { f(one); } h();", "for (const t of a) while (t) { f(t); } h();"),
        ("f(function (one) { return one; });", "f(function (t) { return t; });"),
        ("export class t { } const text = 1; text(t);", "export class t { } const e = 1; e(t);"),
        ("const one = Symbol.for('a'); f(Symbol.for('b'), one);", "const t = Symbol.for('a'); f(Symbol.for('b'), t);"),
        ("const text = 1; t(text);", "const e = 1; t(e);"),
        ("do { const a = 1; use(a); } while (b);", "do { const t = 1; use(t); } while (b);"),
    ],
)
def test_names(source: str, expected: str) -> None:
    """Variables are shortened, most used first; properties, globals and exports stay, and no global is covered."""
    assert spaced(expected) == short(source).replace(":", " : ").replace("  ", " ")


def test_more_names_than_letters() -> None:
    """Once the letters are used up, names of two follow, and no two are the same."""
    out = short("".join(f"const name{n} = {n};" for n in range(100)))
    names = [words[1] for line in out.split(" ;") if len(words := line.split()) == 4]
    assert (100, {1, 2}) == (len(set(names)), {len(name) for name in names})


def test_a_letter_is_used_again_where_its_other_owner_can_not_be_seen() -> None:
    """Two functions that know nothing of each other use the same letters; a used outer name is avoided."""
    source = "const outer = 1; const f = (one) => one; const g = (two) => two + outer; f(g, f, g);"
    assert spaced("const n = 1; const t = (t) => t; const e = (t) => t + n; t(e, t, e);") == short(source)


@pytest.mark.parametrize(
    "source",
    [
        "var a = 1;",
        "eval(a);",
        "const a = 1; const a = 2;",
        "{ const a = 1; } a;",
        "this.#a;",
        "const new = 1;",
        "a < {};",
        "export async function f() {}",
        "const a = 1; export { a };",
    ],
)
def test_what_is_refused(source: str) -> None:
    """What would have to be guessed at raises."""
    with pytest.raises(ScriptError):
        shorten(tokenize(source))
