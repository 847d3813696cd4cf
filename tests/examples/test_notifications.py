"""Notifications: each user's own, on all devices, by tokens that are renewed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
import pytest

from tests.examples.conftest import CUT, LIVE

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating
    from tests.web.conftest import Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "a secret of the tests, of 32 bytes or more"
LIFE = 2.0  # seconds of a token: the client asks for the next one in the last quarter
TEXTS = "() => [...document.querySelectorAll('#list span')].map((text) => text.textContent)"


async def log_in(visit: Visit, user: str) -> None:
    """Log in, and wait until the page listens."""
    await visit.page.click(f"[data-login={user}]")
    await visit.until(LIVE)


async def send(visit: Visit, to: str, text: str) -> None:
    """Send a notification."""
    await visit.page.select_option("[name=to]", to)
    await visit.page.fill("[name=text]", text)
    await visit.page.click("#notify button")
    await visit.until("() => document.querySelector('[name=text]').value === ''")


async def shows(visit: Visit, texts: list[str], unread: int) -> None:
    """Wait until a page shows as many notifications, and as many unread ones; compare the texts, newest first."""
    await visit.until("(count) => document.querySelectorAll('#list li').length >= count", len(texts))
    await visit.until("(count) => document.getElementById('unread').textContent === String(count)", unread)
    assert texts == await visit.page.evaluate(TEXTS)


async def test_a_user_has_notifications_on_all_devices_also_those_of_a_time_without_network(
    demo: Demonstrating, visit: Visiting
) -> None:
    """What came during a cut is there once, what is read is read on the other device, and others get nothing of it."""
    server = await demo("notifications")
    ann, phone, ben = [await visit(server.url) for _ in range(3)]
    ann.expect_problems(*CUT)
    for page, user in ((ann, "ann"), (phone, "ann"), (ben, "ben")):
        await log_in(page, user)
    await send(ben, "ann", "one")
    await shows(ann, ["one"], unread=1)
    await ann.page.context.set_offline(True)
    await send(ben, "ann", "<b>two</b>")
    await shows(phone, ["<b>two</b>", "one"], unread=2)
    await ann.page.context.set_offline(False)
    await shows(ann, ["<b>two</b>", "one"], unread=2)
    await phone.page.click("#read")
    await send(ben, "ann", "three")
    for device in (ann, phone):
        await shows(device, ["three", "<b>two</b>", "one"], unread=1)
    await shows(ben, [], unread=0)


async def test_tokens_are_renewed_and_good_for_nothing_else(demo: Demonstrating, visit: Visiting) -> None:
    """Ann's token ends, and the page goes on with the next one. It opens no channel of Ben's, and is no session."""
    environ = {"ONCECAST_AUTH__SECRET": SECRET, "ONCECAST_AUTH__LEEWAY_SECONDS": "0", "TOKEN_SECONDS": str(LIFE)}
    server = await demo("notifications", **environ)
    ann = await visit(server.url)
    await log_in(ann, "ann")
    await ann.page.click("#spy")
    await ann.until("() => document.getElementById('refusal').textContent.startsWith('Refused. forbidden')")
    await ann.until("() => Number(document.getElementById('fetched').textContent) >= 3")
    await send(ann, "ann", "one")
    await shows(ann, ["one"], unread=1)
    claims = {"sub": "ann", "exp": time.time() + 60}
    forged = jwt.encode({**claims, "aud": "session"}, SECRET[::-1], "HS256")
    for cookie in (jwt.encode(claims, SECRET, "HS256"), forged):
        answer = await ann.page.context.request.get(f"{server.url}token", headers={"Cookie": f"session={cookie}"})
        assert 401 == answer.status
    answer = await ann.page.context.request.post(f"{server.url}login/dan")
    assert 404 == answer.status
