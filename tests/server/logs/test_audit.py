"""The audit log: which refusals have a line, and how many lines a flood may have."""

from __future__ import annotations

import pytest

from oncecast.errors import ERRORS
from oncecast.policy.identity import Identity
from oncecast.server.logs.audit import LINES_PER_SECOND, Audit
from oncecast.server.logs.line import Value

ANN = Identity("192.0.2.1", "ann", "token")


class Rig:
    """An audit log on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[dict[str, Value]] = []
        self.audit = Audit(self.lines.append, lambda: self.now)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_which_errors(code: str) -> None:
    """An error is in the audit log if it refuses a permission, an origin or a rate."""
    rig = Rig()
    rig.audit.refuse(ERRORS[code], ANN)
    wanted = {"unauthorized", "forbidden", "origin_refused", "host_refused", "too_many_requests"}
    statuses = {401, 403, 421, 429}
    assert (code in wanted or ERRORS[code].status in statuses) == bool(rig.lines)


def test_fields() -> None:
    """A line has the code, the transport, the status or close code, the identity and the address."""
    rig = Rig()
    rig.audit.refuse(ERRORS["forbidden"], ANN, "a")
    rig.audit.refuse(ERRORS["forbidden"], ANN, how="close")
    rig.audit.refuse(ERRORS["too_many_requests"], Identity("::1", "shop", "server"), how="frame")
    rig.audit.note("tls_failed", 0, Identity(), None, "connect")
    who = {"address": "192.0.2.1", "subject": "ann"}
    assert [
        {"code": "forbidden", "by": "http", "status": 403, **who, "channel": "a"},
        {"code": "forbidden", "by": "close", "status": 4403, **who},
        {"code": "too_many_requests", "by": "frame", "status": 429, "address": "::1", "key": "shop"},
        {"code": "tls_failed", "by": "connect", "address": "-"},
    ] == rig.lines


@pytest.mark.parametrize("code", ["unauthorized", "origin_refused", "host_refused"])
def test_who_is_not_known_yet(code: str) -> None:
    """A refusal before the credentials are read is not laid to the user of the request before."""
    rig = Rig()
    rig.audit.refuse(ERRORS[code], ANN)
    assert "subject" not in rig.lines[0]


def test_a_flood_has_a_bounded_number_of_lines() -> None:
    """Lines beyond the bound are counted, and one line has their number as soon as there is room again."""
    rig = Rig()
    for _ in range(1000):
        rig.audit.refuse(ERRORS["forbidden"], ANN)
    burst = int(2 * LINES_PER_SECOND)
    assert burst == len(rig.lines)
    rig.audit.tick()
    assert burst == len(rig.lines)
    rig.now = 0.1
    rig.audit.tick()
    assert {"code": "left_out", "count": 1000 - burst} == rig.lines[-1]
    rig.audit.tick()
    assert burst + 1 == len(rig.lines)
    assert 1000 == rig.audit.refused
    for moment in range(1, 101):
        rig.now = moment / 10
        for _ in range(100):
            rig.audit.refuse(ERRORS["forbidden"], ANN)
    assert len(rig.lines) <= burst + 1 + 10 * LINES_PER_SECOND + burst
