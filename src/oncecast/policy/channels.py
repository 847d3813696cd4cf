"""Which rule holds for a channel: rules by exact name and by prefix, compiled once and looked up for each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from ..message import CHANNEL_PATTERN

Rule = TypeVar("Rule")

FOUND = 4096  # channels whose rule is remembered: a client can make up any number of them


class ChannelRules(Generic[Rule]):
    """Rules by pattern: a channel's exact name, or a prefix that ends in `*`.

    The exact name wins, then the longest prefix, then `default`. Rules are not merged with each other.
    """

    __slots__ = ("_default", "_exact", "_found", "_prefixes")

    def __init__(self, rules: Mapping[str, Rule], default: Rule) -> None:
        self._exact = {pattern: rule for pattern, rule in rules.items() if not pattern.endswith("*")}
        prefixes = [(pattern[:-1], rule) for pattern, rule in rules.items() if pattern.endswith("*")]
        self._prefixes = sorted(prefixes, key=lambda each: -len(each[0]))
        self._default = default
        self._found: dict[str, Rule] = {}

    def find(self, channel: str) -> Rule:
        """Return the rule of a channel."""
        if not self._prefixes:
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
        return next((rule for prefix, rule in self._prefixes if channel.startswith(prefix)), self._default)


def is_pattern(text: str) -> bool:
    """Say whether a text is a channel name, or a prefix of one and `*`, or `*`."""
    return text == "*" or CHANNEL_PATTERN.fullmatch(text.removesuffix("*")) is not None
