"""Short names for what a JavaScript module declares: its variables, and the private members of its classes.

Invariant: each use of a name leads to the declaration that it led to before. Properties, globals and what the module
exports keep their names. A name is looked up by ECMA-262's scopes (§9.1), which are found by their brackets; what is
declared somewhere, and used where that declaration can't be seen, is refused rather than guessed at. To allow another
way to declare, add it to `_declare`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from .tokens import Kind, ScriptError, Token

__all__ = ["shorten"]

_RESERVED = """
await break case catch class const continue debugger default delete do else export extends false finally for function if
import in instanceof new null return super switch this throw true try typeof void while with yield async of get set
static let undefined arguments
"""
_WORDS = frozenset(_RESERVED.split())
_REFUSED = {"var", "eval", "with"}  # they look names up in ways of their own
_CONTROL = {"if", "for", "while", "switch", "catch"}
_VALUE_FOLLOWS = "= ( , [ : ? ... ?? && || ??= return throw const let"
_BEFORE_OBJECT = frozenset(_VALUE_FOLLOWS.split())
_OPENS, _CLOSES = frozenset("([{"), frozenset(")]}")
# The letters in the order in which JavaScript uses them, so that what compresses it finds more of the same.
_LETTERS = "tenriaosldcuhfmpgbyvwkxqjz_STENRIAOLDCUHFMPGBYVWKXQJZ$"


@dataclass(eq=False, slots=True)
class _Scope:
    """Where names live. `taken` are the short names of everything that is used in it, whoever declared it."""

    start: int
    end: int
    outer: _Scope | None
    names: dict[str, _Variable] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Variable:
    """A name that somebody declares. `scopes` are those between its uses and its declaration, both included."""

    scope: _Scope
    uses: list[int] = field(default_factory=list)
    scopes: set[_Scope] = field(default_factory=set)


def shorten(tokens: list[Token]) -> list[Token]:
    """Return the tokens with short names. Raises `ScriptError` at what can't be told for sure."""
    return _Names(tokens).shortened()


class _Names:
    """The names of one module.

    `close` and `open` lead from a bracket to its partner, `around[i]` is the bracket that the token `i` is in.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.texts = [token.text for token in tokens] + [";"] * 3  # so that there is something after the last
        self.close: dict[int, int] = {}
        self.open: dict[int, int] = {}
        self.around: list[int] = []
        self._match()
        self.kinds = {at: self._kind(at) for at in self.close if self.texts[at] == "{"}
        self.scopes = self._scopes()
        self._declare()

    # Brackets and scopes

    def _match(self) -> None:
        opened = [-1]
        for i, token in enumerate(self.tokens):
            is_template = token.kind is Kind.TEMPLATE
            if (is_template and token.text[0] == "}") or (token.kind is Kind.MARK and token.text in _CLOSES):
                self.open[i] = opened.pop()
                self.close[self.open[i]] = i
            self.around.append(opened[-1])
            if (is_template and token.text[-2:] == "${") or (token.kind is Kind.MARK and token.text in _OPENS):
                opened.append(i)
            if token.text in _REFUSED and token.kind is Kind.NAME and self.texts[i - 1] != ".":
                raise ScriptError(f"{token.text} is not understood here")

    def _kind(self, at: int) -> str:
        """Say what a brace opens: an `object` or its pattern, a `class`, a `function` or a `block`."""
        before = self.texts[at - 1]
        if self.texts[at - 2] in ("class", "extends"):
            return "class"
        if before == "=>":
            return "function"
        if before in _BEFORE_OBJECT:
            return "object"
        if before == ")":
            return "block" if self._header(at) in _CONTROL else "function"
        if before in (";", "{", "}", "else", "try", "finally", "catch", "do"):
            return "block"
        raise ScriptError(f"a brace after {before}")

    def _scopes(self) -> list[_Scope]:
        """Return for each token the innermost scope that it is in."""
        spans = {(-1, len(self.tokens))}
        for i, text in enumerate(self.texts[:-3]):
            if text == "{" and self.kinds[i] != "object":
                # What a loop, a `catch` or a function has in its parentheses lives as long as the block behind it.
                with_header = self._header(i) in ("for", "catch") or (
                    self.kinds[i] == "function" and self.texts[i - 1] == ")"
                )
                spans.add((self.open[i - 1] if with_header else i, self.close[i]))
            elif text == "=>":
                spans.add(
                    (self._parameters(i), self.close[i + 1] if self.texts[i + 1] == "{" else self._end(i + 1) - 1)
                )
            elif text == "for" and self.texts[i - 1] != ".":
                header = i + 1 + (self.texts[i + 1] == "await")
                if self.texts[self.close[header] + 1] != "{":
                    spans.add((header, self._statement_end(self.close[header] + 1)))
        scopes: list[_Scope] = []
        outermost, *rest = sorted(spans, key=lambda span: (span[0], -span[1]))
        inner = _Scope(*outermost, None)
        for i in range(len(self.tokens)):
            while inner.end < i and inner.outer is not None:
                inner = inner.outer
            while rest and rest[0][0] == i:
                inner = _Scope(*rest.pop(0), inner)
            scopes.append(inner)
        return scopes

    def _header(self, brace: int) -> str:
        """Return the word before the parentheses that stand before a brace: `for await` counts as `for`."""
        if self.texts[brace - 1] != ")":
            return ""
        word = self.open[brace - 1] - 1
        return self.texts[word - (self.texts[word] == "await")]

    def _parameters(self, arrow: int) -> int:
        """Return where the parameters of an arrow begin."""
        return self.open[arrow - 1] if self.texts[arrow - 1] == ")" else arrow - 1

    def _end(self, at: int) -> int:
        """Return where the expression at `at` ends: at a comma, a semicolon, a colon or a closing bracket."""
        questions = 0
        while (text := self.texts[at]) not in (",", ";") and text not in _CLOSES and text[:1] != "}":
            questions += text == "?"
            if text == ":" and (questions := questions - 1) < 0:
                break
            while at in self.close:  # over a bracket, or from piece to piece of a template
                at = self.close[at]
            at += 1
        return at

    def _statement_end(self, at: int) -> int:
        """Return the last token of a statement that is no block: of `if`, with its `else`."""
        while self.texts[at] != ";":
            while at in self.close:
                at = self.close[at]
            if self.texts[at] == "}" and self.texts[at + 1] != "else":
                return at
            at += 1
        return self._statement_end(at + 1) if self.texts[at + 1] == "else" else at

    # Names

    def _declare(self) -> None:
        texts = self.texts
        for i, text in enumerate(texts[:-3]):
            if text in ("const", "let"):
                at = i
                while True:
                    at = self._bind(at + 1)
                    if texts[at] == "=":
                        at = self._end(at + 1)
                    if texts[at] != ",":
                        break
            elif text in ("function", "class") and self.tokens[i].kind is Kind.NAME:
                name = i + 1 + (texts[i + 1] == "*")
                if self.tokens[name].kind is Kind.NAME:
                    self._bind(name)
            elif text == "=>":
                self._bind(self._parameters(i))
            elif text == "{" and texts[i - 1] == ")" and (self.kinds[i] == "function" or self._header(i) == "catch"):
                self._bind(self.open[i - 1])

    def _bind(self, at: int) -> int:
        """Declare the name, or each of the pattern or the parameters, at `at`; return what follows."""
        if self.texts[at] not in _OPENS:
            self._declare_at(at)
            return at + 1
        end, at = self.close[at], at + 1
        while at < end:
            if self.texts[at] in (",", "..."):
                at += 1
            elif self.texts[at + 1] == ":":
                at += 2
            else:
                at = self._bind(at)
                if self.texts[at] == "=":
                    at = self._end(at + 1)
        return end + 1

    def _declare_at(self, at: int) -> None:
        if self.tokens[at].kind is not Kind.NAME or self.texts[at] in _WORDS:
            raise ScriptError(f"{self.texts[at]} can't be declared")
        scope = self.scopes[at]
        if scope.outer is None and self.texts[at] in scope.names:
            raise ScriptError(f"{self.texts[at]} is declared by two modules")
        scope.names.setdefault(self.texts[at], _Variable(scope))

    def _uses(self) -> Iterator[tuple[int, str, _Variable]]:
        """Yield each use of a variable or a private member: where, what is before the short name, and whose it is."""
        private: dict[tuple[_Scope, str], _Variable] = {}
        declared = {name for scope in set(self.scopes) for name in scope.names}
        for i, token in enumerate(self.tokens):
            scope: _Scope | None = self.scopes[i]
            if token.kind is Kind.PRIVATE:
                while scope is not None and self.kinds.get(scope.start) != "class":
                    scope = scope.outer
                if scope is None:
                    raise ScriptError(f"{token.text} is in no class")
                yield i, "#", private.setdefault((scope, token.text), _Variable(scope))
            elif token.kind is Kind.NAME and token.text not in _WORDS and not self._is_property(i):
                while scope is not None and token.text not in scope.names:
                    scope = scope.outer
                if scope is not None:
                    yield i, f"{token.text}:" if self._is_shorthand(i) else "", scope.names[token.text]
                elif token.text in declared:
                    raise ScriptError(f"{token.text} is used where its declaration can't be seen")

    def _is_property(self, at: int) -> bool:
        """Say whether a name is a property's: after a dot, before a colon, or of a member of a class or an object."""
        before, after, around = self.texts[at - 1], self.texts[at + 1], self.kinds.get(self.around[at], "")
        if before in (".", "?."):
            return True
        if around == "object":
            member = before in ("{", ",") or (
                before in ("async", "get", "set", "*") and self.texts[at - 2] in ("{", ",")
            )
            return member and after in (":", "(")
        return around == "class" and before in ("{", "}", ";", "async", "get", "set", "static", "*")

    def _is_shorthand(self, at: int) -> bool:
        is_first = self.kinds.get(self.around[at]) == "object" and self.texts[at - 1] in ("{", ",")
        return is_first and self.texts[at + 1] in (",", "}", "=")

    # What comes out

    def _exported(self) -> set[str]:
        """Return the names that others know."""
        names = set()
        for i, text in enumerate(self.texts[:-3]):
            if text == "export":
                if self.texts[i + 1] not in ("const", "let", "function", "class"):
                    raise ScriptError("an export of another form")
                names.add(self.texts[i + 2])
        return names

    def shortened(self) -> list[Token]:
        """Return the tokens with the names that they get."""
        uses = list(self._uses())
        outermost = next(scope for scope in self.scopes if scope.outer is None)
        variables: dict[_Variable, None] = {}
        exported = self._exported()
        used = {i for i, _, _ in uses}
        # Globals among them. Others are properties only: a few names less to choose from.
        kept = {token.text for i, token in enumerate(self.tokens) if token.kind is Kind.NAME and i not in used}
        kept |= exported | _WORDS
        for i, prefix, variable in uses:
            if prefix != "#" and variable.scope is outermost and self.texts[i] in exported:
                continue
            variables[variable] = None
            variable.uses.append(i)
            scope = self.scopes[i]
            while scope is not variable.scope:
                variable.scopes.add(scope)
                scope = scope.outer  # type: ignore[assignment]  # its own scope is among the outer ones
            variable.scopes.add(scope)
        prefixes = {i: prefix for i, prefix, _ in uses}
        out = list(self.tokens)
        for variable in sorted(variables, key=lambda each: -len(each.uses)):
            mark = "#" if prefixes[variable.uses[0]] == "#" else ""
            taken = set().union(*(scope.taken for scope in variable.scopes))
            name = next(each for each in _short_names() if each not in kept and mark + each not in taken)
            for scope in variable.scopes:
                scope.taken.add(mark + name)
            for i in variable.uses:
                out[i] = Token(self.tokens[i].kind, prefixes[i] + name)
        return out


def _short_names() -> Iterator[str]:
    yield from _LETTERS
    for first, second in itertools.product(_LETTERS, repeat=2):
        yield second + first
