"""The pages of history that subscriptions behind the window ask for and are handed.

Invariants
* At most `PAGES_FOUND` pages are asked for or held. Subscriptions beyond that wait in `later`, first come first served.
* Subscriptions at the same place share a page. A page is held until each of them has been handed it, or has left.
* A subscription stands in at most one of `later`, a request and a found page.
* Each request ends: it is answered, or refused after `READ_SECONDS`; an answer after that is ignored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from ..errors import Refusal
from ..message import Page
from .delivery import DeliveryCounters
from .entry import Entry, loose_entry
from .log import Log
from .place import above_floors
from .subscription import Format, Subscription

PAGE_MESSAGES = 256  # a page of backlog: enough to be written as one block,
PAGE_BYTES = 32 << 10  # small enough that a stalled reader holds little more than this
PAGES_FOUND = 64  # 2 MiB of pages
READ_SECONDS = 40.0  # longer than a broker that keeps its contract takes to answer

UNREAD = Refusal("unavailable", "The history did not answer in time: connect again.", retry_after=5)

Key = tuple[tuple[str, ...], int, tuple[int, ...]]  # channels, place and floors: equal keys share a page
# The channels, the place, the floors, the most messages, the most bytes, and what is called with the page.
ReadHistory = Callable[[tuple[str, ...], int, tuple[int, ...], int, int, Callable[[Page | Refusal], None]], None]


class _Request:
    """A page that was asked for, by whom, and the first time that `expire` has looked at it."""

    __slots__ = ("since", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Subscription, None] = {}
        self.since: float | None = None


class FoundPage:
    """A page of the history, its bytes in the formats that were asked for, and which subscriptions it is held for."""

    __slots__ = ("blocks", "page", "waiting")

    def __init__(self, page: Page) -> None:
        self.page = page
        self.blocks: dict[Format, bytes] = {}
        self.waiting: dict[Subscription, None] = {}


class HistoryPages:
    """The requests and the found pages of one node.

    `ready` is called with a subscription whose page is here or may be asked for, `ahead` with one that has to wait
    until the log has come to a number, `refuse` with one whose page can't be read. `wake` asks for a call of `admit`.
    """

    def __init__(
        self,
        log: Log,
        read: ReadHistory,
        counters: DeliveryCounters,
        *,
        wake: Callable[[], None],
        ready: Callable[[Subscription], None],
        ahead: Callable[[Subscription, int], None],
        refuse: Callable[[Subscription, Refusal], None],
    ) -> None:
        self._log = log
        self._counters = counters
        self._read = read
        self._wake = wake
        self._ready = ready
        self._ahead = ahead
        self._refuse = refuse
        self._asked: dict[Key, _Request] = {}
        self._found: dict[Key, FoundPage] = {}
        self._later: OrderedDict[Subscription, None] = OrderedDict()
        self._asking: dict[Subscription, Key] = {}
        self._kept: dict[Subscription, Key] = {}

    def take(self, subscription: Subscription) -> FoundPage | None:
        """Return the page at the subscription's place. Without one, let the subscription wait until it is `ready`."""
        place = subscription.place
        assert place is not None
        key = (subscription.channels, place.seq, place.floors)
        found = self._found.get(key)
        self.release(subscription)
        if found is None:
            self._ask(key, subscription)
        return found

    def release(self, subscription: Subscription) -> None:
        """Let a subscription wait for nothing here, and hold no page for it."""
        self._later.pop(subscription, None)
        if (key := self._asking.pop(subscription, None)) is not None:
            del self._asked[key].waiting[subscription]
        if (key := self._kept.pop(subscription, None)) is not None:
            found = self._found[key]
            del found.waiting[subscription]
            if not found.waiting:
                del self._found[key]

    def admit(self) -> None:
        """Let as many of those that wait for a request to end go on as there is room for."""
        for _ in range(min(len(self._later), self._room())):
            subscription, _ = self._later.popitem(last=False)
            self._ready(subscription)

    def may_admit(self) -> bool:
        """Whether `admit` would let one go on."""
        return bool(self._later) and self._room() > 0

    def waiting(self) -> list[Subscription]:
        """Return the subscriptions that wait for a request to end, or for a page."""
        return [*self._later, *self._asking]

    def clear(self) -> None:
        """Drop all requests and pages: they are of another log. What is answered to them later is ignored."""
        for waiting in (self._asked, self._found, self._later, self._asking, self._kept):
            waiting.clear()

    def expire(self, now: float) -> None:
        """Refuse the requests that were not answered for `READ_SECONDS`, by a monotonic clock."""
        for key, request in list(self._asked.items()):
            if request.since is None:
                request.since = now
            elif now - request.since >= READ_SECONDS:
                self._answered(key, request, UNREAD)

    def _ask(self, key: Key, subscription: Subscription) -> None:
        request = self._asked.get(key)
        if request is None:
            if self._room() <= 0:
                self._later[subscription] = None
                return
            request = self._asked[key] = _Request()
            request.waiting[subscription] = None
            self._asking[subscription] = key
            channels, seq, floors = key
            self._read(channels, seq, floors, PAGE_MESSAGES, PAGE_BYTES, partial(self._answered, key, request))
            return
        request.waiting[subscription] = None
        self._asking[subscription] = key

    def _answered(self, key: Key, request: _Request, answer: Page | Refusal) -> None:
        if self._asked.get(key) is not request:  # refused by `expire`
            return
        del self._asked[key]
        waiting = list(request.waiting)
        for subscription in waiting:
            del self._asking[subscription]
        if self._later:
            self._wake()
        if isinstance(answer, Refusal):
            for subscription in waiting:
                self._refuse(subscription, answer)
            return
        self._counters.pages += 1
        if (seq := newest_mark(answer)) > self._log.head:
            for subscription in waiting:
                self._ahead(subscription, seq)
            return
        self._log.drop_trimmed(answer)
        if waiting:
            found = self._found[key] = FoundPage(_bounded(answer, key, self._log.head))
            found.waiting.update(dict.fromkeys(waiting))
            for subscription in waiting:
                self._kept[subscription] = key
                self._ready(subscription)

    def _room(self) -> int:
        """Return how many more pages may be asked for."""
        return PAGES_FOUND - len(self._asked) - len(self._found)


def newest_mark(page: Page) -> int:
    """Return the newest message that is trimmed from a channel of a page.

    Where it is above the head of this node, some of the trimmed messages may still be handed over. A gap would name
    messages that are then delivered, so the page has to be read again once the log has come to this number.
    """
    return max((mark.seq for mark in page.marks.values()), default=0)


def _bounded(page: Page, key: Key, head: int) -> Page:
    """Return the page without what is below a floor, and without what this node is still to be handed over."""
    channels, _, floors = key
    page = above_floors(page, channels, floors)
    if page.upto <= head:
        return page
    messages = [message for message in page.messages if message.seq <= head]
    return msgspec.structs.replace(page, messages=messages, upto=head)


def block_found(found: FoundPage, format_: Format, block_of: Callable[[list[Entry], Format], bytes]) -> bytes:
    """Return the bytes of a found page in a format. They are made once."""
    block = found.blocks.get(format_)
    if block is None:
        entries = [loose_entry(message) for message in found.page.messages]
        block = found.blocks[format_] = block_of(entries, format_) if entries else b""
    return block
