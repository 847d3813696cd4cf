"""The leader of a topic that was just made: the metadata may name it before it knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from oncecast.brokers.kafka import log as module
from oncecast.brokers.kafka.log import KafkaLog
from oncecast.brokers.session import Lost


def log_of(monkeypatch: pytest.MonkeyPatch, *codes: int) -> KafkaLog:
    """A log whose leader answers a question for an offset with these codes, the last one again and again."""
    left = list(codes)

    async def answer(_sent: object) -> Any:
        code = left.pop(0) if len(left) > 1 else left[0]
        return SimpleNamespace(topics=[("t", [(0, code, -1, 7)])])

    monkeypatch.setattr(module, "answer", answer)
    monkeypatch.setattr(module, "LEADING_PAUSE", 0)
    log = KafkaLog(SimpleNamespace(topic=SimpleNamespace(name="t")))  # type: ignore[arg-type]
    log._reading = SimpleNamespace(send=lambda asked: asked)
    return log


async def test_a_leader_that_does_not_know_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again."""
    assert (7, 7) == await log_of(monkeypatch, 6, 5, 0).bounds()


async def test_a_leader_that_never_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after a while, as any other error is at once."""
    monkeypatch.setattr(module, "LEADING_SECONDS", 0.05)
    for code in (6, 29):
        with pytest.raises(Lost):
            await log_of(monkeypatch, code).bounds()
