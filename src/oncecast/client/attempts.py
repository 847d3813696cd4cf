"""One request, tried until it succeeds, is refused, or is given up.

Invariant: a request that can't succeed ends: with a refusal, with the failure that outlasted its patience, or with
`PublishFailed` once it has failed alike again and again while the server answers other requests.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .backoff import UNREACHABLE_CAP_SECONDS, Backoff
from .credentials import Credentials
from .failures import Broken, PublishFailed, Refused, Unavailable, Unreachable

__all__ = ["SAME_FAILURES", "Attempts", "OnRetry"]

T = TypeVar("T")
OnRetry = Callable[[Broken], Awaitable[None]]

SAME_FAILURES = 6  # in a row, until the server is asked whether it answers other requests: some 15 s of backoff
PASSING = frozenset({408, 425, 429, 502, 503, 504})  # an answer with one of these is about the server, not the request


class Attempts:
    """Tries requests, one at a time. `clock` is monotonic, in seconds.

    `serves` says whether the server answers an ordinary request now. Where no attempt has ever reached the server,
    `Unreachable` is raised at once: then most often its address is wrong. `on_retry` is awaited with each failure that
    is followed by another attempt; what it raises ends the request.
    """

    def __init__(
        self,
        *,
        backoff: Backoff,
        credentials: Credentials,
        serves: Callable[[], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._backoff = backoff
        self._credentials = credentials
        self._serves = serves
        self._clock = clock
        self._on_retry = on_retry
        self._reached = False

    async def run(self, attempt: Callable[[], Awaitable[T]], *, patience: float | None) -> T:
        """Return the attempt's result, trying for `patience` seconds, None for ever. Raises `Refused` or `Broken`."""
        began = self._clock()
        self._backoff.reset()
        renewed = False
        same, last = 0, ""
        while True:
            try:
                result = await attempt()
            except Refused as error:
                self._reached = self._reached or error.status is not None
                if error.code != "unauthorized" or renewed or not self._credentials.renewable:
                    raise
                renewed = True
                self._credentials.expire()
            except Broken as error:
                unreachable = isinstance(error, Unreachable)
                if unreachable and not self._reached:
                    raise
                self._reached = True
                same, last = (same + 1, last) if str(error) == last else (1, str(error))
                if same >= SAME_FAILURES and not _passes(error):
                    if await self._serves():
                        raise PublishFailed(
                            f"given up after {same} attempts that failed alike, as the server answers other requests: "
                            f"{error}"
                        ) from error
                    same = 0
                delay = self._backoff.next_delay(
                    error.retry_after, cap=UNREACHABLE_CAP_SECONDS if unreachable else float("inf")
                )
                if patience is not None and self._clock() - began + delay > patience:
                    raise
                if self._on_retry is not None:
                    await self._on_retry(error)
                await self._backoff.sleep(delay)
            else:
                self._reached = True
                return result


def _passes(error: Broken) -> bool:
    """Say whether a failure is about the server or the way to it, not about the request."""
    return isinstance(error, Unreachable) or (isinstance(error, Unavailable) and error.status in PASSING)
