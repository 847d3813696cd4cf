"""The live subscriptions, by channel.

Invariant: a subscription stands in the audience of each of its channels, or in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from .subscription import Descriptor, Format, Subscription


class Group:
    """The live subscriptions of one channel and format whose sink gets nothing else: by socket, or by sink."""

    __slots__ = ("descriptors", "sinks")

    def __init__(self) -> None:
        self.descriptors: dict[Subscription, Descriptor] = {}
        self.sinks: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.descriptors) + len(self.sinks)


class Audience:
    """The live subscriptions of one channel: those whose sink gets nothing else, by format, and the others."""

    __slots__ = ("alone", "gathered")

    def __init__(self) -> None:
        self.alone: dict[Format, Group] = {}
        self.gathered: dict[Subscription, None] = {}

    def __bool__(self) -> bool:
        return bool(self.alone or self.gathered)

    def __len__(self) -> int:
        return len(self.gathered) + sum(map(len, self.alone.values()))

    def __iter__(self) -> Iterator[Subscription]:
        for group in self.alone.values():
            yield from group.descriptors
            yield from group.sinks
        yield from self.gathered

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        if not subscription.alone:
            self.gathered[subscription] = None
            return
        group = self.alone.get(subscription.format)
        if group is None:
            group = self.alone[subscription.format] = Group()
        if subscription.descriptor is not None:
            group.descriptors[subscription] = subscription.descriptor
        else:
            group.sinks[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        if not subscription.alone:
            del self.gathered[subscription]
            return
        group = self.alone[subscription.format]
        if subscription.descriptor is not None:
            del group.descriptors[subscription]
        else:
            del group.sinks[subscription]
        if not group:
            del self.alone[subscription.format]


class Audiences:
    """The audience of each channel that has a live subscription.

    A channel with one, as a user's own channel has, has the subscription itself in `of`: with many such channels each
    object in between is one more cache miss.
    """

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of: dict[str, Audience | Subscription] = {}

    def members(self) -> list[Subscription]:
        """Return every live subscription, once."""
        found: dict[Subscription, None] = {}
        for audience in self.of.values():
            found.update(dict.fromkeys([audience] if isinstance(audience, Subscription) else audience))
        return list(found)

    def count(self, channel: str) -> int:
        """Return how many live subscriptions a channel has."""
        audience = self.of.get(channel)
        return 1 if isinstance(audience, Subscription) else 0 if audience is None else len(audience)

    def first(self, channel: str, most: int) -> list[Subscription]:
        """Return the live subscriptions of a channel, at most so many."""
        audience = self.of.get(channel)
        return [audience] if isinstance(audience, Subscription) else list(islice(audience or (), most))

    def gathered(self, channel: str) -> list[Subscription]:
        """Return the live subscriptions of a channel whose sink gets something else, too."""
        audience = self.of.get(channel)
        if isinstance(audience, Subscription):
            return [] if audience.alone else [audience]
        return [] if audience is None else list(audience.gathered)

    def enter(self, subscription: Subscription) -> None:
        """Add a subscription to the audiences of its channels."""
        for channel in subscription.channels:
            audience = self.of.setdefault(channel, subscription)
            if audience is subscription:
                continue
            if isinstance(audience, Subscription):
                first, audience = audience, Audience()
                audience.add(first)
                self.of[channel] = audience
            audience.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription from the audiences of its channels."""
        for channel in subscription.channels:
            audience = self.of[channel]
            if isinstance(audience, Audience):
                audience.remove(subscription)
                if audience:
                    continue
            del self.of[channel]
