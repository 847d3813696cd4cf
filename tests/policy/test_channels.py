"""Compiled rules of channels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oncecast.policy.channels import FOUND, ChannelRules, is_pattern


def test_the_exact_name_wins_then_the_longest_prefix() -> None:
    """In whatever order the rules stand."""
    rules = ChannelRules({"a*": 1, "a.b": 2, "*": 3, "a.*": 4}, 0)
    assert [2, 4, 1, 3, 3] == [rules.find(name) for name in ("a.b", "a.c", "ab", "b", "b")]
    assert [5, 0] == [ChannelRules({"a": 5}, 0).find(name) for name in ("a", "ab")]
    assert 0 == ChannelRules({"a*": 1}, 0).find("b")


@given(
    st.dictionaries(st.text("ab", max_size=3).flatmap(lambda t: st.sampled_from([t, t + "*"])), st.integers()),
    st.text("ab", max_size=4),
)
def test_the_rule_is_the_one_that_a_search_finds(rules: dict[str, int], name: str) -> None:
    """A search through all rules finds the same."""
    fitting = [p for p in rules if p == name or (p.endswith("*") and name.startswith(p[:-1]))]
    best = name if name in rules else max(fitting, key=len, default=None)
    assert (-1 if best is None else rules[best]) == ChannelRules(rules, -1).find(name)


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
