"""JavaScript modules that are written for readers, as one that is small to send: joined, stripped, with short names.

Nobody has to build anything: the server does this once, when it loads its pages. Invariant: what comes out means the
same as what went in. What is not understood (`var`, `eval`) is refused with `ScriptError`; a statement that only a
newline ends must not stand in the sources. The client's own tests run against both forms. To allow more of the
language, teach `tokens.py` its form, and `names.py` what it declares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .names import shorten
from .tokens import Kind, ScriptError, Token, tokenize

__all__ = ["ScriptError", "join"]

_NAME_LIKE = re.compile(r"[\w$#]")
_CONTROL = {"if", "for", "while", "switch", "catch"}  # what stands before parentheses that are no call
# Nothing is assigned to a constant, or the sources would not work as they are.
_LET, _SEMICOLON, _COMMA = Token(Kind.NAME, "let"), Token(Kind.MARK, ";"), Token(Kind.MARK, ",")
_SHORTER = {
    Token(Kind.NAME, "const"): _LET,
    Token(Kind.NAME, "true"): Token(Kind.MARK, "!0"),
    Token(Kind.NAME, "false"): Token(Kind.MARK, "!1"),
}
_OPERATORS = {"=", "(", ",", "?", ":", "[", "=>", "??", "&&", "||", "return"}  # before which a name stands alone


def join(sources: Mapping[str, str], entry: str) -> str:
    """Return one module that exports what `entry` does, of the modules in `sources` (by file name) that it needs.

    They import from each other by `import { a, b } from "./name.js"`. Raises `ScriptError`, and `KeyError` where a
    module is not among the sources.
    """
    parts: dict[str, list[Token]] = {}
    _collect(sources, entry, parts)
    return _text(_merge(_tidy(shorten([token for part in parts.values() for token in part]))))


def _collect(sources: Mapping[str, str], name: str, parts: dict[str, list[Token]], *, importer: str = "") -> None:
    """Add a module's tokens, after those of what it imports."""
    tokens = tokenize(sources[name])
    at = 0
    while tokens[at].text == "import":
        end = next(i for i in range(at, len(tokens)) if tokens[i].text == ";")
        found = re.fullmatch(r'"\./([\w-]+\.js)"', tokens[end - 1].text)
        if found is None or any(token.text in ("as", "*") for token in tokens[at:end]):
            raise ScriptError(f"{name}: an import of another form")
        if found[1] not in parts:
            _collect(sources, found[1], parts, importer=name)
        at = end + 1
    kept = tokens[at:]
    if any(token.text == "import" for token in kept):
        raise ScriptError(f"{name}: an import that is not at the top")
    parts[name] = [token for token in kept if token.text != "export"] if importer else kept


# What comes out --------------------------------------------------------------------------------------------------


def _tidy(tokens: list[Token]) -> list[Token]:
    """Drop what a reader wants and a machine does not: last semicolons and commas, lone parentheses, separators."""
    out: list[Token] = []
    opened: list[int] = []  # where in `out` the brackets stand that are open
    dropped: set[int] = set()  # of `opened`, by depth: those whose closing parenthesis is dropped too
    for i, token in enumerate(tokens):
        text = token.text
        if text in (")", "]", "}") and out[-1].text == "," and out[-2].text not in (",", "["):
            out.pop()
        if text == "}" and out[-1].text == ";" and not _is_empty_statement(out):
            out.pop()
        if text in ("(", "[", "{"):
            if text == "(" and _is_lone(tokens, i):
                dropped.add(len(opened))
            opened.append(len(out))
        elif text in (")", "]", "}"):
            opened.pop()
        depth = len(opened) - (text in ("(", "[", "{"))
        if depth in dropped and text in ("(", ")"):
            if text == ")":
                dropped.remove(depth)
            continue
        before = tokens[i - 1].text
        is_property = before in (".", "?.") or (before in ("{", ",") and tokens[i + 1].text == ":")
        out.append(token if is_property else _short(token))
    return out


def _merge(tokens: list[Token]) -> list[Token]:
    """Make one declaration of those that follow each other."""
    out: list[Token] = []
    declares = [False]  # by depth: whether the statement there is a declaration
    for token in tokens:
        last = out[-1] if out else _SEMICOLON
        if token == _LET and last == _SEMICOLON and declares[-1]:
            out[-1] = _COMMA
            continue
        if token == _LET:
            declares[-1] = last.text in (";", "{", "}")
        elif last == _SEMICOLON:
            declares[-1] = False
        if token.text in (")", "]", "}") or (token.kind is Kind.TEMPLATE and token.text[0] == "}"):
            declares.pop()
        if token.text in ("(", "[", "{") or (token.kind is Kind.TEMPLATE and token.text[-2:] == "${"):
            declares.append(False)
        out.append(token)
    return out


def _short(token: Token) -> Token:
    """Return a shorter token that means the same."""
    if token.kind is Kind.NUMBER:
        text = token.text.replace("_", "")
        return Token(token.kind, re.sub(r"^(\d*[1-9])(000+)$", lambda found: f"{found[1]}e{len(found[2])}", text))
    return _SHORTER.get(token, token)


def _is_lone(tokens: list[Token], at: int) -> bool:
    """Say whether a parenthesis holds one name that needs none: a cast's, or an arrow's only parameter."""
    name, close, after = tokens[at + 1 : at + 4]
    if name.kind is not Kind.NAME or close.text != ")":
        return False
    return after.text == "=>" or tokens[at - 1].text in _OPERATORS


def _is_empty_statement(out: list[Token]) -> bool:
    """Say whether the semicolon at the end is the whole body of a loop or an `if`."""
    if out[-2].text != ")":
        return False
    at = len(out) - 2
    depth = 1
    while depth:
        at -= 1
        depth += (out[at].text == ")") - (out[at].text == "(")
    return out[at - 1].text in _CONTROL


def _text(tokens: list[Token]) -> str:
    return "".join(_pieces(tokens)) + "\n"


def _pieces(tokens: list[Token]) -> Iterator[str]:
    """Yield the tokens, with a space only where two of them would become another one."""
    last = ""
    for token in tokens:
        text = token.text
        joins = _NAME_LIKE.match(text) and re.search(r"[\w$]$", last) and token.kind is not Kind.TEMPLATE
        if joins or (text[0] in "+-" and last[-1:] == text[0]):
            yield " "
        yield text
        last = text
