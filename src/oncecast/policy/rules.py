"""The access rules of the settings: which identities may subscribe and publish to which channels.

One table of rules by pattern (`channels.py` says which of them holds for a channel), compiled once. `judge` is the only
place that decides: the server raises what it says, and `oncecast config explain` prints it.

A rule has a word for each of the two: `public`, everybody; `token`, users with a verified token; `server`, only a
server's key. A server may do everything. Where a token names channels itself, it allows no others. In a channel
whose pattern has `{sub}`, `token` means the token of the user that the name has there.

Invariant: what no rule allows is refused: a channel that no rule is for, an action that a rule does not name, and a
name that the grammar of channels does not have, so that names of the server itself are out of everybody's reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import Refusal
from ..message import CHANNEL_PATTERN
from .access import Access
from .channels import ChannelPattern, ChannelRules, parse_pattern
from .identity import Identity

__all__ = ["AccessRule", "AccessRules", "Action", "Allowed", "Ruling"]

Action = Literal["subscribe", "publish"]
Allowed = Literal["public", "token", "server"]

KNOWN = 4096  # channels whose need is remembered, for each action: a client can make up any number of them

# What a channel needs, besides the subject that stands in it; no channel's name has these characters.
NOTHING, ANY_TOKEN = "", "*"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Who may do what in the channels of one pattern."""

    pattern: ChannelPattern
    subscribe: Allowed = "server"
    publish: Allowed = "server"

    def allowed(self, action: Action) -> Allowed:
        """Return the word for an action."""
        return self.subscribe if action == "subscribe" else self.publish


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision: by `rule`, None where there is none; with `refusal`, None where it is allowed."""

    rule: AccessRule | None
    refusal: Refusal | None = None


class AccessRules(Access):
    """Rules by pattern: `subscribe` and `publish` of each. Raises nothing; what is no pattern fits no channel."""

    __slots__ = ("_needs", "_rules")

    fixed = True  # other rules are another object, and `Service.adopt` forgets what was allowed by this one

    def __init__(self, rules: Mapping[str, tuple[Allowed, Allowed]]) -> None:
        read = {text: (parse_pattern(text), allowed) for text, allowed in rules.items()}
        compiled: dict[str, AccessRule | None] = {
            text: AccessRule(pattern, *allowed) for text, (pattern, allowed) in read.items() if pattern is not None
        }
        self._rules: ChannelRules[AccessRule | None] = ChannelRules(compiled, None)
        self._needs: Mapping[Action, dict[str, str]] = {"subscribe": {}, "publish": {}}

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        """Raise `Refusal` unless this identity may read all of these channels, their history too."""
        needs = self._needs["subscribe"]
        for channel in channels:
            need = needs.get(channel)
            if need == NOTHING:
                continue
            fits = need is not None and need in (ANY_TOKEN, identity.subject)
            if not fits or identity.kind != "token" or identity.subscribe is not None:
                self._check(identity, "subscribe", channel)

    def is_public(self, channels: tuple[str, ...], /) -> bool:
        """Return whether everybody may read all of these channels. It may say no before one has been asked for."""
        needs = self._needs["subscribe"]
        return all(needs.get(channel) == NOTHING for channel in channels)

    def publish(self, identity: Identity, channel: str, /) -> None:
        """Raise `Refusal` unless this identity may publish to this channel."""
        need = self._needs["publish"].get(channel)
        if need == NOTHING:
            return
        fits = need is not None and need in (ANY_TOKEN, identity.subject)
        if not fits or identity.kind != "token" or identity.publish is not None:
            self._check(identity, "publish", channel)

    def judge(self, identity: Identity, action: Action, channel: str) -> Ruling:
        """Decide whether an identity may do something in a channel."""
        if CHANNEL_PATTERN.fullmatch(channel) is None:
            return Ruling(None, Refusal("forbidden", "This is no name of a channel that clients may use."))
        rule = self._rules.find(channel)
        if identity.kind == "server":
            return Ruling(rule)
        return Ruling(rule, _refusal(identity, action, channel, rule))

    def _check(self, identity: Identity, action: Action, channel: str) -> None:
        ruling = self.judge(identity, action, channel)
        if ruling.refusal is not None:
            raise ruling.refusal
        rule, needs = ruling.rule, self._needs[action]
        if rule is None or channel in needs or rule.allowed(action) == "server":
            return
        if len(needs) >= KNOWN:
            needs.clear()
        needs[channel] = NOTHING if rule.allowed(action) == "public" else rule.pattern.place(channel) or ANY_TOKEN


def _refusal(identity: Identity, action: Action, channel: str, rule: AccessRule | None) -> Refusal | None:
    """Return why an identity that is no server may not do this, or None if it may."""
    doing = "subscribe" if action == "subscribe" else "publish"
    if rule is None:
        return Refusal("forbidden", f"No rule of this server is for the channel {channel}: add one to the settings.")
    allowed = rule.allowed(action)
    if allowed == "public":
        return None
    if allowed == "server":
        return Refusal("forbidden", f"Only a server's key may {doing} to {channel}.")
    if identity.kind != "token":
        return Refusal("unauthorized", f"Only a token may {doing} to {channel}: send one.")
    place = rule.pattern.place(channel)
    if place and place != identity.subject:
        return Refusal("forbidden", f"{channel} is the channel of another user: this token may not {doing} to it.")
    granted = identity.may_subscribe(channel) if action == "subscribe" else identity.may_publish(channel)
    if not granted:
        return Refusal(
            "forbidden", f"This token names the channels to which it may {doing}: {channel} is none of them."
        )
    return None
