"""The page about tokens: its application hands out a token, in two frameworks, and its client gets in with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse

from oncecast import AsyncClient
from oncecast.message import Draft, Kind
from oncecast.server.auth import build_authenticator
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from tests.docs_rig import ROOT, blocks
from tests.token_rig import SECRET

SECONDS = 60.0
VARIABLE = "ONCECAST_SECRET_OF_MY_APP"
# Django's settings are those of a process.
DJANGO = """
from types import SimpleNamespace
import django
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.test import RequestFactory
settings.configure(
    SECRET_KEY="x",
    LOGIN_URL="/login",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
)
urlpatterns = []
django.setup()
{token}
{view}
for known in (True, False):
    request = RequestFactory().get("/oncecast-token")
    request.user = SimpleNamespace(pk=7, is_authenticated=known)
    answer = oncecast_token(request)
    print(answer.status_code, answer.get("Cache-Control"), answer.content.decode() or answer["Location"])
"""


def fragment(start: str) -> str:
    """Return the one block of Python on the page that has this in it."""
    page = blocks(ROOT / "docs" / "how-to" / "authenticate.md")
    (block,) = [block for block in page if block.language == "python" and start in block.text]
    return block.text


def is_of_user_7(token: str) -> bool:
    """Return whether a server with the same secret takes it for the user's, with the channels that the page names."""
    authenticator = build_authenticator(AuthSettings(secret=SECRET))
    assert authenticator is not None
    identity = authenticator.identify(token, "", time.time())
    return ("7", ("user.7", "news")) == (identity.subject, identity.subscribe)


@dataclass
class User:
    """Somebody who is logged in."""

    id: int


async def test_fastapi_and_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The route answers with a token, and the client that asks it reads the user's own channel."""
    monkeypatch.setenv(VARIABLE, SECRET)
    app = FastAPI()
    scope: dict[str, Any] = {
        "app": app,
        "Annotated": Annotated,
        "Depends": Depends,
        "PlainTextResponse": PlainTextResponse,
        "User": User,
        "current_user": lambda: User(7),
        "AsyncClient": AsyncClient,
    }
    exec(fragment("def token_of"), scope)
    exec(fragment('@app.get("/oncecast-token"'), scope)

    async def fetch_token() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
            return (await http.get("/oncecast-token")).text

    assert is_of_user_7(await fetch_token())
    rules = {"user.{sub}": ChannelRule(subscribe="token")}
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET), channels=rules))
    await server.start()
    try:
        published = asyncio.Event()
        server.node.publish([Draft("user.7", b"hello", Kind.TEXT)], lambda outcomes: published.set())
        used = fragment("get_token=fetch_token").replace("https://live.example.com", f"http://127.0.0.1:{server.port}")
        assert used.endswith("    ...\n")
        used = used.replace("    ...\n", '    return await client.history("user.7", last=1)\n')
        scope["fetch_token"] = fetch_token
        exec(f"async def use():\n{textwrap.indent(used, '    ')}", scope)
        async with asyncio.timeout(SECONDS):
            await published.wait()
            found = await scope["use"]()
        assert ["hello"] == [message.data for message in found.messages]
    finally:
        await server.stop(0)


async def test_django() -> None:
    """The view answers a user with a token that no cache keeps, and sends anybody else to the login."""
    program = DJANGO.format(token=fragment("def token_of"), view=fragment("@login_required"))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={VARIABLE: SECRET},
        check=False,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    given, refused = done.stdout.splitlines()
    status, kept, token = given.split()
    assert ("200", "no-store", True) == (status, kept, is_of_user_7(token))
    assert refused.startswith("302 None /login")
