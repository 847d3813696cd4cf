"""Compiled rules of channels."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.policy.channels import FOUND, ChannelRules, fill, is_pattern, matches, parse_pattern


def test_the_exact_name_wins_then_the_longest_prefix() -> None:
    """The order of the rules does not matter."""
    rules = ChannelRules({"a*": 1, "a.b": 2, "*": 3, "a.*": 4}, 0)
    assert [2, 4, 1, 3, 3] == [rules.find(name) for name in ("a.b", "a.c", "ab", "b", "b")]
    assert [5, 0] == [ChannelRules({"a": 5}, 0).find(name) for name in ("a", "ab")]
    assert 0 == ChannelRules({"a*": 1}, 0).find("b")


def fits(pattern: str, channel: str) -> bool:
    """Say the same as the code, by a regular expression."""
    expression = re.escape(pattern).replace(re.escape("{sub}"), "[^.]+").replace(re.escape("*"), ".*")
    return re.fullmatch(expression, channel) is not None


def order(pattern: str) -> tuple[bool, int, bool, bool, int]:
    """Say which of two patterns that fit holds, as the docstring of the module does."""
    plain = "{" not in pattern and "*" not in pattern
    head = re.split(r"\{sub\}|\*", pattern)[0]
    tail = pattern.partition("{sub}")[2].removesuffix("*")
    return plain, len(head), "{sub}" in pattern, not pattern.endswith("*"), len(tail)


PATTERNS = st.text("ab.", max_size=4).flatmap(
    lambda t: st.sampled_from([t, t + "*", t + "{sub}", t + "{sub}.*", t + "{sub}.a", t + "{sub}.a*", t + "{sub}.b.*"])
)


@given(st.dictionaries(PATTERNS.filter(is_pattern), st.integers(), max_size=12), st.text("ab.", max_size=8))
@settings(max_examples=500)
def test_the_rule_is_the_one_that_a_search_finds(rules: dict[str, int], name: str) -> None:
    """A search through all rules finds the same, and there is never a second of the same rank."""
    fitting = sorted((p for p in rules if fits(p, name)), key=order)
    assert (-1 if not fitting else rules[fitting[-1]]) == ChannelRules(rules, -1).find(name)
    assert len(fitting) == len({order(pattern) for pattern in fitting})


@pytest.mark.parametrize(
    "channel, expected",
    [
        ("user.ann", "user.{sub}"),
        ("user.ann.x", "user.{sub}.*"),
        ("user.ann.inbox", "user.{sub}.inbox"),
        ("user.ann.in", "user.{sub}.in*"),
        ("user.all", "user.all"),
        ("user.admin1", "user.admin*"),
        ("user.", "user.*"),
        ("user..x", "user.*"),
        ("users", "u*"),
        ("x", "*"),
    ],
)
def test_the_pattern_that_holds(channel: str, expected: str) -> None:
    """A name, then the longest text before {sub} or *, then {sub}, then what ends, then the longest text behind it."""
    patterns = ["*", "u*", "user.*", "user.{sub}", "user.{sub}.*", "user.{sub}.in*", "user.{sub}.inbox", "user.all"]
    patterns.append("user.admin*")
    for given_in in (patterns, patterns[::-1]):
        assert expected == ChannelRules({pattern: pattern for pattern in given_in}, "").find(channel)


def test_what_stands_for_sub_has_no_dot_and_is_not_empty() -> None:
    """Else user.a.b could belong to a, by one pattern, and to a.b, by another."""
    pattern = parse_pattern("user.{sub}.*")
    assert pattern is not None
    assert ["a", "a", None, None, None] == [
        pattern.place(name) for name in ("user.a.b", "user.a.", "user.a", "user..b", "use.a.b")
    ]
    plain = parse_pattern("user.*")
    assert plain is not None
    assert ["", None] == [plain.place(name) for name in ("user.a", "users")]


def test_many_rules_cost_no_search() -> None:
    """A name that nobody has asked for before is looked up by its prefixes, not compared with each rule."""
    rules = ChannelRules({f"room{number}.*": number for number in range(20_000)}, -1)
    calls = []

    class Counting(str):
        def startswith(self, *args: object) -> bool:
            calls.append(args)
            return True

    assert 19_999 == rules.find(Counting("room19999.x"))
    assert len(calls) <= 1


def test_what_is_remembered_is_bounded() -> None:
    """Clients make up names; the rules stay the same."""
    rules = ChannelRules({"a*": 1}, 0)
    for number in range(FOUND + 10):
        assert 1 == rules.find(f"a{number}")
        assert len(rules._found) <= FOUND


def test_patterns() -> None:
    """A channel's name, a prefix of one, or all."""
    assert [True] * 4 == [is_pattern(text) for text in ("a", "a.*", "a*", "*")]
    assert [False] * 4 == [is_pattern(text) for text in ("", "**", "a b", "-*")]
    assert [True] * 5 == [is_pattern(f"{{sub}}{text}") for text in ("", ".*", ".a", ".a*", ".")]
    assert [False] * 5 == [is_pattern(f"{{sub}}{text}") for text in ("*", "a", ".{sub}", ":a", ".a**")]
    assert [True, False, False] == [is_pattern(text) for text in ("a@{sub}.b", "{su}", "-{sub}")]


def test_patterns_of_a_token() -> None:
    """A name or a prefix."""
    assert [True, True, False, True] == [matches(p, "a.b") for p in ("a.b", "a.*", "a", "*")]


@pytest.mark.parametrize(
    "pattern, subject, filled",
    [
        ("news", None, "news"),
        ("user.{sub}", "ann", "user.ann"),
        ("user.{sub}.*", "a:b@c-d_e", "user.a:b@c-d_e.*"),
        ("user.{sub}", None, None),
        ("user.{sub}", "", None),
        ("user.{sub}", "*", None),
        ("user.{sub}", "ann.admin", None),
        ("user.{sub}", "{sub}", None),
        ("user.{sub}", "ann\n", None),
        ("user.{sub}", "\u0661", None),
    ],
)
def test_a_subject_fills_its_own_part_of_a_name(pattern: str, subject: str | None, filled: str | None) -> None:
    """No subject turns a pattern into one that fits the channels of others."""
    assert filled == fill(pattern, subject)
