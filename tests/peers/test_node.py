"""Clients for Node: `ws` and `eventsource`, in small scripts that print what they saw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.peers.conftest import Site, Story

    Node = Callable[..., Awaitable[Any]]


async def test_ws_resumes_after_cuts(story: Story, node: Node) -> None:
    """Cut off again and again, `ws` subscribing after its last id hears all, once, in order."""
    (start,) = await story.site.publish("before")
    story.begin()
    seen = await node("listen.mjs", story.url(scheme="ws", query=f"?after={start}"), story.messages)
    story.check(seen["data"])
    assert story.pipe.cuts + 1 == seen["connections"]


async def test_eventsource_resumes_after_cuts(short_story: Story, node: Node) -> None:
    """`eventsource` comes back by itself with its last id, and hears all, once, in order."""
    (start,) = await short_story.site.publish("before")
    short_story.begin()
    seen = await node("events.mjs", short_story.url(query=f"?after={start}"), short_story.messages)
    short_story.check(seen["data"])
    assert short_story.pipe.cuts == seen["errors"]
    epoch, number = start.split("-")
    assert f"{epoch}-{int(number) + short_story.messages}" == seen["lastEventId"]


async def test_ws_on_a_raw_socket(site: Site, node: Node) -> None:
    """Text, bytes, fragments, pings, the largest message and the closes are as `ws` expects; nothing is compressed."""
    expected = {
        "extensions": "",
        "protocol": "",
        "text": "text ü",
        "binary": [0, 255],
        "pong": "between",
        "fragments": "fragments",
        "largest": 1 << 20,
        "over": 1009,
        "close": 4321,
        "refused": 400,
    }
    assert expected == await node("sockets.mjs", site.url(scheme="ws"))
