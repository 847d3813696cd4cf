"""The measurement of obstacles: its command, and that it notices a broken stream."""

from __future__ import annotations

import pytest

from oncecast.client import ClientMessage, Messages
from oncecast.testing.client_matrix import main, measure


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line for each row, with the transports that were used."""
    assert 0 == main(["--scale", "0.02", "none", "websocket-403"])
    lines = capsys.readouterr().out.splitlines()
    assert ["none", "websocket-403"] == [line.split()[0] for line in lines]
    assert lines[1].endswith("websocket → sse → websocket")


async def test_a_broken_stream_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes twice, as if the client had not kept its place, fails the measurement."""
    take = Messages.__anext__
    seen: list[ClientMessage] = []

    async def twice(messages: Messages) -> ClientMessage:
        seen.append(seen[0] if len(seen) == 1 else await take(messages))
        return seen[-1]

    monkeypatch.setattr(Messages, "__anext__", twice)
    with pytest.raises(AssertionError, match="or not in their order"):
        await measure("none", scale=0.05, blocked=1.0)
