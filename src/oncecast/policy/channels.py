"""Rules by pattern, compiled once, and the look-up of the rule for a channel.

A pattern is a channel's name, in which one part between dots may be `{sub}`, and which may end in `*`. Exactly one of
the patterns that fit a channel holds for it, whatever the order in which they stand. Compared in this order, the first
difference decides:

1. a name without `{sub}` and `*`, which fits one channel only;
2. the longer text before the first `{sub}` or `*`;
3. `{sub}` before `*`;
4. without a `*` before with one;
5. the longer text between `{sub}` and the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..message import CHANNEL_PATTERN

SUB = "{sub}"
SEPARATOR = "."  # what fills `{sub}` has none, so a channel says in one way only whose it is

_SUBJECT = re.compile(r"[A-Za-z0-9_:@-]+", re.ASCII)

Rule = TypeVar("Rule")

FOUND = 4096  # channels whose rule is remembered: a client can make up any number of them


@dataclass(frozen=True, slots=True)
class ChannelPattern:
    """A pattern, read: `head`, then `{sub}` and `tail` if there is one, then the rest of the name if it is `open`."""

    text: str
    head: str
    tail: str | None
    open: bool

    def place(self, channel: str) -> str | None:
        """Return what a channel has for `{sub}`, "" where the pattern has none; None if it does not fit."""
        if not channel.startswith(self.head):
            return None
        if self.tail is None:
            return "" if self.open or channel == self.head else None
        filled, dot, after = channel[len(self.head) :].partition(SEPARATOR)
        rest = dot + after
        fits = rest.startswith(self.tail) if self.open else rest == self.tail
        return filled if filled and fits else None

    @property
    def rank(self) -> tuple[int, bool, bool, int]:
        """Of two patterns that fit a channel, neither of them a plain name, the one with the greater rank holds."""
        return len(self.head), self.tail is not None, not self.open, len(self.tail or "")


class ChannelRules(Generic[Rule]):
    """Rules by pattern, and `default` where none fits. Rules are not merged. An invalid pattern fits no channel."""

    __slots__ = ("_default", "_exact", "_found", "_lengths", "_patterns")

    def __init__(self, rules: Mapping[str, Rule], default: Rule) -> None:
        self._exact: dict[str, Rule] = {}
        self._patterns: dict[str, list[tuple[ChannelPattern, Rule]]] = {}  # by head, the highest rank first
        self._default = default
        self._found: dict[str, Rule] = {}
        for text, rule in rules.items():
            pattern = parse_pattern(text)
            if pattern is None:
                continue
            if pattern.tail is None and not pattern.open:
                self._exact[text] = rule
            else:
                self._patterns.setdefault(pattern.head, []).append((pattern, rule))
        for fitting in self._patterns.values():
            fitting.sort(key=lambda each: each[0].rank, reverse=True)
        self._lengths = sorted({len(head) for head in self._patterns}, reverse=True)

    def find(self, channel: str) -> Rule:
        """Return the rule of a channel."""
        if not self._lengths:
            return self._exact.get(channel, self._default)
        found = self._found.get(channel)
        if found is None:
            if len(self._found) >= FOUND:
                self._found.clear()
            found = self._found[channel] = self._look_up(channel)
        return found

    def _look_up(self, channel: str) -> Rule:
        if channel in self._exact:
            return self._exact[channel]
        for length in self._lengths:
            for pattern, rule in self._patterns.get(channel[:length], ()):
                if pattern.place(channel) is not None:
                    return rule
        return self._default


def parse_pattern(text: str) -> ChannelPattern | None:
    """Read a pattern; None for a text that is none."""
    name, star = text.removesuffix("*"), text.endswith("*")
    head, found, tail = name.partition(SUB)
    if found and (SUB in tail or (tail or ("*" if star else SEPARATOR))[0] != SEPARATOR):
        return None  # only one, and what follows it begins with a dot
    if not (star and not name) and CHANNEL_PATTERN.fullmatch(name.replace(SUB, "x")) is None:
        return None
    return ChannelPattern(text, head, tail if found else None, star)


def is_pattern(text: str) -> bool:
    """Say whether a text is a pattern."""
    return parse_pattern(text) is not None


def matches(pattern: str, channel: str) -> bool:
    """Say whether a pattern without `{sub}` fits a channel."""
    return channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern


def fill(pattern: str, subject: str | None) -> str | None:
    """Return a pattern with `{sub}` replaced by a user; None where no part of a name between dots can be that user.

    A subject with a dot or a `*` would reach the channels of other users.
    """
    if SUB not in pattern:
        return pattern
    if subject is None or _SUBJECT.fullmatch(subject) is None:
        return None
    return pattern.replace(SUB, subject)
