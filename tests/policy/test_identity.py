"""Identities: what their credentials grant."""

from __future__ import annotations

import dataclasses

import pytest

from oncecast.policy.identity import ANYBODY, Identity


def test_an_identity_does_not_change() -> None:
    """An identity, which all parts of a request share, is immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        ANYBODY.address = "x"  # type: ignore[misc]


def test_credentials_without_channels_leave_them_to_the_rules() -> None:
    """None of patterns is no restriction; an empty list of them grants nothing."""
    assert (True, True) == (ANYBODY.may_subscribe("news"), ANYBODY.may_publish("news"))
    nothing = Identity(kind="token", subscribe=(), publish=())
    assert (False, False) == (nothing.may_subscribe("news"), nothing.may_publish("news"))


@pytest.mark.parametrize(
    "pattern, channel, granted",
    [
        ("news", "news", True),
        ("news", "newsroom", False),
        ("chat.*", "chat.1", True),
        ("chat.*", "chat.", True),
        ("chat.*", "chat", False),
        ("chat.*", "a.chat.1", False),
        ("*", "anything", True),
    ],
)
def test_patterns(pattern: str, channel: str, granted: bool) -> None:
    """A pattern is a name, a prefix and `*`, or `*`; subscribing and publishing are granted apart."""
    reader = Identity(kind="token", subscribe=(pattern,), publish=())
    assert (granted, False) == (reader.may_subscribe(channel), reader.may_publish(channel))
    writer = Identity(kind="token", subscribe=(), publish=("other", pattern))
    assert (False, granted) == (writer.may_subscribe(channel), writer.may_publish(channel))
