"""JavaScript's text as tokens, comments and whitespace left out. ECMA-262 §12.

Owns the lexical forms that the sources use. Invariant: the tokens, with whitespace between them, are the same program,
as long as no statement ends by a newline alone (ECMA-262 §12.10). To read another form, add it to `_TOKEN`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

__all__ = ["Kind", "ScriptError", "Token", "tokenize"]


class ScriptError(ValueError):
    """A module is not of the form that is understood here."""


class Kind(enum.Enum):
    """What a token is."""

    NAME = "name"  # keywords too
    PRIVATE = "private"
    NUMBER = "number"
    STRING = "string"
    REGEX = "regex"
    TEMPLATE = "template"  # a piece of one: from the backquote or the brace that ends a substitution, to the next
    MARK = "mark"


@dataclass(frozen=True, slots=True)
class Token:
    """A token."""

    kind: Kind
    text: str


_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | //[^\n]* | /\*.*?\*/ )
  | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
  | (?P<number> (?: \d[\d_]*(?:\.\d+)? | \.\d+ ) (?:e[+-]?\d+)? n? )
  | (?P<private> \#[A-Za-z_$][\w$]* )
  | (?P<name> [A-Za-z_$][\w$]* )
  | (?P<mark> \.\.\. | [!=]==? | => | \?\?=? | \?\.(?!\d) | (?:&&|\|\||\*\*|<<|>>>?|[-+*/%&|^<>])=? | \+\+ | --
      | [-{}()\[\];,~?:.=!] )
    """,
    re.VERBOSE | re.DOTALL,
)
_STEP = re.compile(r"\+\+|--")
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/[a-z]*")
_PIECE = re.compile(r"(?:\\.|\$(?!\{)|[^`\\$])*(?P<end>`|\$\{)", re.DOTALL)
_OPERATOR_WORDS = {"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "yield", "await", "else"}


def tokenize(source: str) -> list[Token]:
    """Return a module's tokens. Raises `ScriptError`."""
    tokens: list[Token] = []
    braces: list[bool] = []  # whether each brace that is open began a substitution in a template
    at = 0
    while at < len(source):
        char = source[at]
        if char == "`" or (char == "}" and braces and braces[-1]):
            if char == "}":
                braces.pop()
            piece = _PIECE.match(source, at + 1)
            if piece is None:
                raise ScriptError("a template that does not end")
            if piece["end"] == "${":
                braces.append(True)
            tokens.append(Token(Kind.TEMPLATE, source[at : piece.end()]))
            at = piece.end()
            continue
        if char in "{}":
            if char == "{":
                braces.append(False)
            elif not braces or braces.pop():
                raise ScriptError("a brace that nothing opens")
        found = _STEP.match(source, at)
        if found is not None:
            tokens.append(Token(Kind.MARK, found[0]))
        elif char == "/" and source[at + 1 : at + 2] not in ("/", "*") and not _ends_value(tokens):
            found = _REGEX.match(source, at)
            if found is not None:
                tokens.append(Token(Kind.REGEX, found[0]))
        else:
            found = _TOKEN.match(source, at)
            if found is not None and found.lastgroup != "space":
                tokens.append(Token(Kind(found.lastgroup), found[0]))
        if found is None:
            raise ScriptError(f"no token of JavaScript that is known here: {source[at : at + 20]!r}")
        at = found.end()
    if braces:
        raise ScriptError("a brace that nothing closes")
    return tokens


def _ends_value(tokens: list[Token]) -> bool:
    """Say whether a value stands before, so that a slash divides it (ECMA-262 §12.9.5).

    After a closing parenthesis or brace only the grammar would tell; there a slash is taken to divide.
    """
    if not tokens:
        return False
    last = tokens[-1]
    if last.kind is Kind.NAME:
        return last.text not in _OPERATOR_WORDS
    if last.kind is Kind.TEMPLATE:
        return not last.text.endswith("${")
    return last.kind is not Kind.MARK or last.text in (")", "]", "}")
