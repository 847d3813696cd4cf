"""The notices of a client, and the callbacks that receive them: moves, states and gaps.

Invariant: a callback that fails harms neither the client nor the other callbacks. To add a kind of notice, add it to
`KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..errors import UsageError
from .callbacks import call_back, check_callback
from .ladder import Moved
from .link import StateChanged
from .values import Gap

__all__ = ["Notice", "NoticeKind", "Notices"]

Notice = Moved | StateChanged | Gap
NoticeKind = Literal["transport", "state", "gap"]
KINDS: dict[str, type] = {"transport": Moved, "state": StateChanged, "gap": Gap}


class Notices:
    """The callbacks of one client, by kind."""

    def __init__(self) -> None:
        self._callbacks: dict[type, list[Callable[[Any], object]]] = {}

    def on(self, kind: NoticeKind, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Add a callback; return a function that removes it, once. Raises `UsageError`."""
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of notice: use {', '.join(KINDS)}")
        check_callback("callback", callback)
        callbacks = self._callbacks.setdefault(KINDS[kind], [])
        callbacks.append(callback)
        left = [callback]

        def off() -> None:
            """Remove the callback."""
            if left:
                callbacks.remove(left.pop())

        return off

    def wanted(self, kind: NoticeKind) -> bool:
        """Whether there is a callback for this kind."""
        return bool(self._callbacks.get(KINDS[kind]))

    def send(self, notice: Notice) -> None:
        """Call back with a notice."""
        for callback in tuple(self._callbacks.get(type(notice), ())):
            call_back("of a notice", callback, notice)
