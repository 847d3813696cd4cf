"""The pages about coming from another library: the application before and the one after run, and do what the page says.

To add a page that shows `before.py` and `after.py`, add a row to `PEERS` in `tests/asgi/move_in.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from oncecast import Oncecast
from tests.asgi.conftest import SECONDS, free_port
from tests.asgi.move_in import PEERS, UVICORN, Ear, Peer, Say, serving, write_apps
from tests.brokers.servers import Servers
from tests.docs_rig import ROOT, blocks, pages

AGAIN_SECONDS = 0.5  # to wait for a message before it is said again

DJANGO = """
import django
from django.conf import settings
apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}
settings.configure(INSTALLED_APPS=apps, DATABASES={"default": database}, SECRET_KEY="secret")
django.setup()
from oncecast import Oncecast
cast = Oncecast()
"""
DJANGO_SESSION = """
from django.contrib import auth
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
request = HttpRequest()
request.session = import_module(settings.SESSION_ENGINE).SessionStore()
auth.login(request, User.objects.create_user("ann"))
request.session.save()
cookie, value, url = "sessionid", request.session.session_key, "/v1/channels/chat.7"
app = cast
"""
FLASK_SESSION = """
flask.secret_key = "secret"
value = flask.session_interface.get_signing_serializer(flask).dumps({"user": "ann"})
cookie, url = "session", "/rt/v1/channels/orders"
"""
ASK = """
import asyncio, httpx

async def ask():
    async with cast, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        tries = (value, value[:-1], "")
        return [(await http.get(url, headers={"Cookie": f"{cookie}={each}"})).status_code for each in tries]

print(asyncio.run(ask()))
"""
SESSIONS = {"channels": (DJANGO, DJANGO_SESSION), "flask-sse": ("", FLASK_SESSION)}  # what stands before and after

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)


def test_each_page_has_a_row() -> None:
    """A page whose applications nothing would run does not pass."""
    shown = {page.stem for page in pages() if any(block.mark == "file before.py" for block in blocks(page))}
    assert {f"from-{peer.name}" for peer in PEERS} == shown


@pytest.fixture
async def redis(peer: Peer, servers: Servers) -> AsyncIterator[str]:
    """The URL of a Redis of its own where the library needs one, else nothing."""
    with ExitStack() as stack:
        yield (await asyncio.to_thread(servers.own, "redis", stack)).url if peer.needs_redis else ""


@each_peer
async def test_before(peer: Peer, redis: str, tmp_path: Path) -> None:
    """It works with the real library: its client hears each way to publish, and not what came while it was away."""
    write_apps(peer, tmp_path)
    async with (
        asyncio.timeout(SECONDS),
        serving(peer.command, "before", tmp_path, free_port(), REDIS_URL=redis) as url,
    ):
        for say in peer.say_before:
            async with peer.listen_before(url) as ear:
                assert "hello" == await heard_at_last(ear, say, url, "hello")
        await say(url, "missed")
        async with peer.listen_before(url) as ear:
            assert "last" == await heard_at_last(ear, say, url, "last")


async def heard_at_last(ear: Ear, say: Say, url: str, text: str) -> str:
    """Say something until anything is heard: not each library lets a listener know that it listens."""
    while True:
        await say(url, text)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(ear.get(), AGAIN_SECONDS)


@each_peer
async def test_after(peer: Peer, tmp_path: Path) -> None:
    """Listeners hear each message once, whichever worker has them, and after a crash also what came meanwhile."""
    write_apps(peer, tmp_path)
    port = free_port()
    async with asyncio.timeout(SECONDS), contextlib.AsyncExitStack() as listening:
        async with serving(UVICORN, "after", tmp_path, port, "--workers", "2") as url:
            ears = [await listening.enter_async_context(peer.listen_after(url)) for _ in range(2)]
            for number, say in enumerate(peer.say_after):
                await say(url, f"way {number}")
                assert [f"way {number}"] * 2 == [await ear.get() for ear in ears]
        async with Oncecast(f"sqlite:///{tmp_path}/app.db") as cast:
            await cast.publish(peer.channel, {peer.field: "missed"})
        async with serving(UVICORN, "after", tmp_path, port) as url:
            await say(url, "last")
            for ear in ears:
                assert ["missed", "last"] == [await ear.get(), await ear.get()]


@pytest.mark.parametrize("peer", PEERS[:2], ids=lambda peer: peer.name)
async def test_both_in_one_application(peer: Peer, redis: str, tmp_path: Path) -> None:
    """While one moves, the clients of either side are served by one process."""
    write_apps(peer, tmp_path)
    async with (
        asyncio.timeout(SECONDS),
        serving(UVICORN, "both", tmp_path, free_port(), REDIS_URL=redis) as url,
        peer.listen_before(url) as old,
        peer.listen_after(url) as new,
    ):
        await peer.say_before[0](url, "old")
        await peer.say_after[0](url, "new")
        assert ("old", "new") == (await old.get(), await new.get())


@pytest.mark.parametrize("name", SESSIONS)
async def test_sessions_say_who_it_is(name: str, tmp_path: Path) -> None:
    """The page's function knows the user of the framework's session, and nobody by a forged one or none."""
    files = {block.mark: block.text for block in blocks(ROOT / "docs" / "how-to" / f"from-{name}.md")}
    before, session = SESSIONS[name]
    script = "\n".join((before or files["file after.py"], files["file who.py"], session, ASK))
    (tmp_path / "asks.py").write_text(script, "utf-8")
    command = (sys.executable, "-W", "error", "asks.py")  # a process, as Django is set up once in one
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(SECONDS):
        printed, _ = await process.communicate()
    assert b"[200, 401, 401]\n" == printed
