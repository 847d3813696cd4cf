"""What holds for one channel."""

from __future__ import annotations

import pytest

from oncecast.server import settings
from oncecast.server.settings import ChannelRule, RetentionSettings, Settings

RULES = {
    "a.*": ChannelRule(messages=1),
    "a.b.*": ChannelRule(seconds=2.0, lag="latest"),
    "a.b.c.d": ChannelRule(),
}


def rule_of(given: Settings, channel: str) -> ChannelRule:
    """Return the rule of a channel, made as a policy is."""
    rules = settings.channel_rules(
        given, lambda messages, seconds, lag: ChannelRule(messages=messages, seconds=seconds, lag=lag)
    )
    return rules.find(channel)


@pytest.mark.parametrize(
    "channel, expected",
    [
        ("other", ChannelRule(messages=7, seconds=70.0)),
        ("a.b", ChannelRule(messages=1, seconds=70.0)),
        ("a.b.c", ChannelRule(messages=7, seconds=2.0, lag="latest")),
        ("a.b.c.d", ChannelRule(messages=7, seconds=70.0)),
    ],
)
def test_the_rule_of_a_channel(channel: str, expected: ChannelRule) -> None:
    """The exact name wins over prefixes, the longest prefix over shorter ones, and [retention] fills the rest."""
    given = Settings(retention=RetentionSettings(messages=7, seconds=70.0), channels=RULES)
    assert expected == rule_of(given, channel)


def test_a_rule_for_every_channel() -> None:
    """The pattern * fits every name, and loses against any other that fits."""
    given = Settings(channels={"*": ChannelRule(lag="disconnect"), "x*": ChannelRule(lag="latest")})
    assert ["disconnect", "latest"] == [rule_of(given, name).lag for name in ("y", "x")]
