"""Notifications: each user has a channel, `user.NAME`, that nobody else can read.

A session cookie says who somebody is, and the application signs a token of a minute for it. Oncecast verifies it, and
the rules of oncecast.toml say what it may do. What a user has read is a message in the same channel, so that all
devices of a user agree.
"""

import os
import secrets
import time
from pathlib import Path

import jwt
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast

HERE = Path(__file__).parent
USERS = ("ann", "ben", "cleo")
TOKEN_SECONDS = float(os.environ.get("TOKEN_SECONDS", "60"))
# Oncecast verifies with the secret in this variable. Where there is none, both get one that ends with the process.
SECRET = os.environ.setdefault("ONCECAST_AUTH__SECRET", secrets.token_urlsafe(32))

cast = Oncecast(settings=HERE / "oncecast.toml")


def sign(user: str, seconds: float, **more: str) -> str:
    """Return a JSON Web Token. One for Oncecast has no `aud`, so a session is no token, and a token is no session."""
    now = time.time()
    return jwt.encode({"sub": user, "iat": now, "exp": now + seconds, **more}, SECRET, "HS256")


def user_of(request: Request) -> str:
    """Return who asks, by the session."""
    try:
        return str(jwt.decode(request.cookies.get("session", ""), SECRET, ["HS256"], audience="session")["sub"])
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Log in first.") from None


async def log_in(request: Request) -> Response:
    """Begin a session. Your application asks for a password here."""
    if (user := request.path_params["user"]) not in USERS:
        raise HTTPException(404, f"There is no such user: name one of {', '.join(USERS)}.")
    answer = Response(status_code=204)
    answer.set_cookie("session", sign(user, 86400, aud="session"), httponly=True, samesite="strict")
    return answer


async def token(request: Request) -> Response:
    """Return a fresh token of whoever is logged in: the page's `getToken` fetches it."""
    return PlainTextResponse(sign(user_of(request), TOKEN_SECONDS), headers={"Cache-Control": "no-store"})


async def notify(request: Request) -> Response:
    """Publish a text to somebody."""
    if (to := request.path_params["user"]) not in USERS:
        raise HTTPException(404, f"There is no such user: name one of {', '.join(USERS)}.")
    note = {"from": user_of(request), "text": (await request.body()).decode(errors="replace")[:200]}
    await cast.publish(f"user.{to}", note, event="notification")
    return Response(status_code=204)


routes = [
    Route("/login/{user}", log_in, methods=["POST"]),
    Route("/token", token),
    Route("/notify/{user}", notify, methods=["POST"], max_body_size=1000),
    Mount("/rt", cast),
    Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
    Mount("/", StaticFiles(directory=HERE / "page", html=True)),
]
app = Starlette(routes=routes, lifespan=cast.lifespan)
