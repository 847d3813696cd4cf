"""The application's own requests: what the access log shows of their paths, and whose they are behind a proxy."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.asgi.hosting.outside import Outside
from oncecast.server.settings import Settings
from tests.asgi.hosting.conftest import Beside, OwnApp, ask
from tests.asgi.peers import HandPeer, http_scope


class Logging:
    """As much of a `HostedLife` as the access log needs."""

    logging = True

    def __init__(self) -> None:
        self.settings = Settings()
        self.lines: list[Any] = []
        self.log = self.lines.append


@pytest.mark.parametrize(
    ("path", "query", "shown"),
    [
        ("/orders", "", "/orders"),
        ("/orders", "token=s", "/orders?..."),
        ("/a%20b", "", "/a%20b"),
        ("/orders%3Ftoken=s", "", "/orders..."),
        ("/orders%253ftoken%253ds", "", "/orders..."),
        ("/orders;token=s", "x=1", "/orders...?..."),
        ("/" + "x" * 300, "", "/" + "x" * 199 + "..."),
    ],
)
async def test_a_line_has_no_field_of_a_query(path: str, query: str, shown: str) -> None:
    """However its mark was sent, as in the lines of the server's own requests."""
    life: Any = Logging()
    async with HandPeer(Outside(OwnApp(), life).serve, http_scope(path, query=query)) as peer:
        peer.say({"type": "http.request", "body": b"", "more_body": False})
        await peer.ended()
    assert [shown] == [line["path"] for line in life.lines]


@pytest.mark.parametrize(
    ("header", "lines", "seen"),
    [
        ("x-forwarded-for", ("X-Forwarded-For: 192.0.2.7, 10.0.0.1",), "192.0.2.7 http"),
        ("x-forwarded-for", ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 10.0.0.1"), "192.0.2.7 http"),
        ("forwarded", ("Forwarded: for=192.0.2.7", "Forwarded: for=10.0.0.1;proto=https"), "192.0.2.7 https"),
    ],
)
async def test_proxies_may_write_lines_of_their_own(
    beside: Beside, header: Any, lines: tuple[str, ...], seen: str
) -> None:
    """Repeated lines are one list (RFC 9110 §5.2), for the application as for the server."""
    settings = Settings(port=0, app="own:app", trusted_proxies=("127.0.0.1", "10.0.0.1"), forwarded_header=header)
    site = await beside(OwnApp(), settings)
    answer = await ask(await site.connect(), "/own", *lines)
    assert f"app GET /own {seen}" == answer.body.decode()
