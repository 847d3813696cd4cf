"""Django Channels: a consumer for each listener, in one group of the layer in memory."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 - it reads the settings
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from .publisher import PublishBeside  # noqa: E402

GROUP = "prices"
members: set[str] = set()


class Listener(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels brings no types
    """Sends what the group gets."""

    async def connect(self) -> None:
        """Join."""
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()
        members.add(self.channel_name)

    async def disconnect(self, code: int) -> None:
        """Leave."""
        members.discard(self.channel_name)
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def price(self, event: dict[str, Any]) -> None:
        """Send a message."""
        await self.send(text_data=event["text"])


async def publish(text: str) -> None:
    """Send a message to the group."""
    await get_channel_layer().group_send(GROUP, {"type": "price", "text": text})


app = PublishBeside(URLRouter([path("listen", Listener.as_asgi())]), publish, members.__len__)
