"""Access: without rules everything is allowed."""

from __future__ import annotations

from oncecast.policy.access import ALLOW_ALL
from oncecast.policy.identity import ANYBODY, Identity


def test_without_rules_everybody_may_do_everything() -> None:
    """Without access rules, each identity may do everything."""
    ALLOW_ALL.subscribe(ANYBODY, ("a", "b"))
    ALLOW_ALL.publish(Identity("192.0.2.1", "ann"), "a")
