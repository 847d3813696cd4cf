"""The contract that every transport must keep, as checks to run over any transport: `check_transport`.

A transport is represented by its test subscriber (`subscriber.py`), the smallest client that keeps its cursor. `CHECKS`
holds the clauses by name, so that pytest can show each as a test of its own:

    @pytest.mark.parametrize("name", CHECKS)
    async def test_contract(name): await check_transport(MySubscriber, name)

To add a clause, write a check in `transport_reading.py` or `transport_faults.py`. The checks need no plugin. A failed
one raises `TransportFailed`, whose text is the clause.
"""

from __future__ import annotations

import asyncio

from . import transport_faults, transport_reading
from .subscriber import Subscriber
from .transport_bench import Serve, TransportBench, TransportFailed, serve
from .transport_reading import TransportCheck

__all__ = ["CHECKS", "TransportCheck", "TransportFailed", "check_transport"]

SECONDS = 120.0  # the deadline of one check

CHECKS: dict[str, TransportCheck] = {**transport_reading.CHECKS, **transport_faults.CHECKS}


async def check_transport(
    kind: type[Subscriber],
    name: str | None = None,
    *,
    start: Serve = serve,
    own_clock: bool = False,
    seconds: float | None = None,
) -> None:
    """Check a transport against the contract, or against its clause `name`. Raises `TransportFailed`.

    `kind` makes its subscribers. `start` runs a server with the transport, on the broker that the check passes, or on
    one of the same epoch; `own_clock` says that its time is this machine's, not that broker's. Each check starts and
    stops a server of its own, and has `seconds` for all of it, by default two minutes.
    """
    limit = SECONDS if seconds is None else seconds
    for check in CHECKS.values() if name is None else (CHECKS[name],):
        bench = TransportBench(kind, start, own_clock=own_clock)
        try:
            async with asyncio.timeout(limit):
                await check(bench)
        except TimeoutError:
            clause = (check.__doc__ or "").strip()
            raise TransportFailed(f"{clause}\n  actual   nothing came for {limit:g} seconds") from None
        finally:
            await bench.close()
