"""What is asked of a stream, where the server answers with an error."""

from __future__ import annotations

from typing import Any, cast

import pytest

from oncecast.brokers.address import parse_address
from oncecast.brokers.lives import Life, Lives
from oncecast.brokers.nats import operate
from oncecast.brokers.nats.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.nats.client import OrderedClient
from oncecast.brokers.nats.stream import Stream
from oncecast.brokers.session import Lost


class Client:
    """Answers each question about the stream with an error."""

    async def ask_json(self, subject: str, question: object = None) -> dict[str, Any]:
        """Answer."""
        return {"error": {"code": 404, "description": "stream not found"}}

    async def ask(self, subject: str, data: bytes = b"") -> Any:
        """Answer that there is no such message."""
        return cast(Any, type("Answer", (), {"status": "404"}))


async def test_a_stream_that_is_gone() -> None:
    """Each question ends with the server's own words."""
    address = parse_address("nats://h?stream=s", SCHEMES, PORT, OPTIONS)
    stream = Stream(cast(OrderedClient, Client()), address, key_seconds=60.0, replicas=None, clustered=False)
    lives = Lives([Life(1, "e", 0.0, "server", 0)])
    for asked in (
        operate.state(stream, lives, "2.9"),
        operate.channels(stream, lives),
        operate.channel(stream, lives, "a"),
    ):
        with pytest.raises(Lost, match="the stream s: stream not found"):
            await asked
