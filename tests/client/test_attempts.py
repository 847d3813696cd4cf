"""Attempts: what is tried again, for how long, and when a request is given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from oncecast import Broken, OncecastError, PublishFailed, Refused, Unavailable, Unreachable
from oncecast.client.attempts import SAME_FAILURES, Attempts
from oncecast.client.backoff import Backoff
from oncecast.client.credentials import Credentials

RESET = Broken("connection reset")


class Rig:
    """Attempts whose sleeps take a second of a clock of their own."""

    def __init__(self, *, patience: float | None = None, serves: bool = True, tokens: Sequence[str] = ()) -> None:
        self.slept: list[float] = []
        self.asked = 0
        self._serves = serves
        ticks = count()
        left = list(tokens)
        self.credentials = Credentials((lambda: left.pop(0)) if tokens else None)
        self.patience = patience
        self.attempts = Attempts(
            backoff=Backoff(rng=lambda: 0.0, sleep=self._sleep),
            credentials=self.credentials,
            serves=self._look,
            clock=lambda: float(next(ticks)),
        )

    async def run(self, *ends: OncecastError | int) -> int:
        """Attempt with these ends, one after another, the last one for ever."""
        left = list(ends)

        async def attempt() -> int:
            end = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(end, OncecastError):
                raise end
            return end

        return await self.attempts.run(attempt, patience=self.patience)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _look(self) -> bool:
        self.asked += 1
        return self._serves


async def test_what_passes_is_tried_again() -> None:
    """After Retry-After, or the jitter."""
    rig = Rig()
    assert 7 == await rig.run(RESET, Unavailable("busy", status=503, retry_after=3.0), Unreachable("gone"), 7)
    assert [0.0, 3.0, 0.0] == rig.slept


async def test_a_refusal_is_final() -> None:
    """`Refused` is raised at once, without another attempt."""
    rig = Rig()
    with pytest.raises(Refused, match="no"):
        await rig.run(Refused("no", code="forbidden", status=403))
    assert [] == rig.slept


async def test_the_same_failure_again_and_again() -> None:
    """Without any patience to end it, it is given up once the server is seen to answer others."""
    rig = Rig()
    with pytest.raises(PublishFailed, match=f"given up after {SAME_FAILURES} attempts .*: connection reset") as caught:
        await rig.run(RESET)
    assert (SAME_FAILURES - 1, 1) == (len(rig.slept), rig.asked)
    assert RESET is caught.value.__cause__


async def test_a_server_that_is_away_is_waited_for() -> None:
    """As long as it answers nothing at all, the request may be right."""
    rig = Rig(patience=40.0, serves=False)
    with pytest.raises(Broken, match="reset") as caught:
        await rig.run(RESET)
    assert Broken is type(caught.value)
    assert (40, 6) == (len(rig.slept), rig.asked)


@pytest.mark.parametrize(
    "failure",
    [lambda n: Broken(f"another {n % 2}"), lambda n: Unavailable("502", status=502), lambda n: Unreachable("gone")],
)
async def test_failures_that_are_not_the_requests(failure: Callable[[int], Broken]) -> None:
    """A request that fails for the server's or the network's sake is tried again until the patience is over."""
    rig = Rig(patience=100.0)
    with pytest.raises(Broken) as caught:
        await rig.run(RESET, *[failure(n) for n in range(99)])
    assert not isinstance(caught.value, PublishFailed)
    assert (100, 0) == (len(rig.slept), rig.asked)


async def test_an_internal_error_for_one_request() -> None:
    """A 500 that this request gets each time is the request's."""
    with pytest.raises(PublishFailed):
        await Rig().run(Unavailable("boom", status=500))


async def test_where_nothing_ever_answered() -> None:
    """The address is wrong: it is said at once. Once anything has answered, a server that is gone is waited for."""
    rig = Rig()
    with pytest.raises(Unreachable):
        await rig.run(Unreachable("gone"))
    assert [] == rig.slept
    with pytest.raises(Refused):
        await rig.run(Refused("no", status=403))
    assert 1 == await rig.run(Unreachable("gone"), 1)


async def test_a_token_is_renewed_once() -> None:
    """A 401 is answered with another token; the second is final."""
    rig = Rig(tokens=("a", "b"))
    refused = Refused("no", code="unauthorized", status=401)
    assert 1 == await rig.run(refused, 1)
    with pytest.raises(Refused):
        await rig.run(refused)
    with pytest.raises(Refused):
        await Rig().run(refused)  # no token to renew
