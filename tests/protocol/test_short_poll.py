"""Short polling: what there is, at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.protocol import short_poll
from oncecast.protocol.base import Reply, parse_query


def answer(rig: Any, query: str, if_none_match: str | None = None) -> Reply:
    """The answer to a short poll, which comes at once."""
    replies: list[Reply | Refusal] = []
    short_poll.answer(rig.node, rig.settings, ("c",), parse_query(query), if_none_match, replies.append)
    (reply,) = replies
    assert isinstance(reply, Reply)
    return reply


def test_it_answers_at_once_also_with_nothing(rig: Any) -> None:
    """An empty log is answered with the cursor of its head, and leaves no subscription."""
    reply = answer(rig, "after=latest")
    assert {"messages": [], "cursor": "e-0", "gap": None} == json.loads(reply.body)
    assert 0 == rig.node.hub.subscriptions


def test_it_answers_304_to_who_has_it(rig: Any) -> None:
    """The condition goes through to the poll."""
    rig.publish("1")
    assert 304 == answer(rig, "", '"e-1"').status


def test_too_many_channels_are_refused(rig: Any) -> None:
    """The limit on channels holds for polls too."""
    names = tuple(f"c{n}" for n in range(rig.settings.channels_per_subscription + 1))
    with pytest.raises(Refusal, match="at most"):
        short_poll.answer(rig.node, rig.settings, names, parse_query(""), None, lambda reply: None)
