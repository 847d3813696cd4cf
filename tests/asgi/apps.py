"""Small applications of each framework. `/rt` is the realtime part, `/publish` and `/orders` are routes of their own.

A server is started with `tests.asgi.apps:NAME`; ONCECAST_BROKER says which broker they use. Frameworks read annotations
when a route is made, so they are no strings here.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import oncecast

__all__ = ["django_app", "fastapi_app", "litestar_app", "quart_app", "starlette_app"]

cast = oncecast.Oncecast(subscribe="public", publish="public")


def fastapi_app() -> Any:
    """FastAPI."""
    from fastapi import FastAPI, Request

    app = FastAPI(lifespan=cast.lifespan)
    app.mount("/rt", cast)

    @app.post("/publish")
    async def publish() -> dict[str, str]:
        return {"id": (await cast.publish("orders", {"from": "fastapi"})).id}

    @app.get("/orders")
    async def orders(request: Request) -> Any:
        return cast.stream("orders", request)

    return app


def starlette_app() -> Any:
    """Starlette, with the application's own lifespan around."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route

    async def publish(request: Request) -> JSONResponse:
        return JSONResponse({"id": (await cast.publish("orders", {"from": "starlette"})).id})

    async def orders(request: Request) -> Any:
        return cast.stream("orders", request)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with cast:
            yield

    routes = [Route("/publish", publish, methods=["POST"]), Route("/orders", orders), Mount("/rt", cast)]
    return Starlette(routes=routes, lifespan=lifespan)


def litestar_app() -> Any:
    """Litestar."""
    from litestar import Litestar, Request, asgi, get, post
    from litestar.types import Receive, Scope, Send

    @post("/publish")
    async def publish() -> dict[str, str]:
        return {"id": (await cast.publish("orders", {"from": "litestar"})).id}

    @get("/orders")
    async def orders(request: Request[Any, Any, Any]) -> oncecast.EventAnswer:
        return cast.stream("orders", request)

    @asgi("/rt", is_mount=True)
    async def realtime(scope: Scope, receive: Receive, send: Send) -> None:
        await cast(scope, receive, send)  # type: ignore[arg-type]

    return Litestar([publish, orders, realtime], lifespan=[cast.lifespan])


def quart_app() -> Any:
    """Quart."""
    from quart import Quart, request

    app = Quart(__name__)

    @app.post("/publish")
    async def publish() -> dict[str, str]:
        return {"id": (await cast.publish("orders", {"from": "quart"})).id}

    @app.get("/orders")
    async def orders() -> Any:
        answer = cast.stream("orders", request)
        return answer.blocks(), dict(answer.headers)

    app.asgi_app = cast.beside(app.asgi_app, "/rt")  # type: ignore[method-assign, assignment, arg-type]
    return app


def django_app() -> Any:
    """Django."""
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
    from django.urls import path

    async def publish(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"id": (await cast.publish("orders", {"from": "django"})).id})

    async def orders(request: HttpRequest) -> StreamingHttpResponse:
        answer = cast.stream("orders", request)
        return StreamingHttpResponse(answer.blocks(), headers=dict(answer.headers))

    urls: Any = type(sys)("tests_asgi_urls")
    urls.urlpatterns = [path("publish", publish), path("orders", orders)]
    sys.modules["tests_asgi_urls"] = urls
    settings.configure(ROOT_URLCONF="tests_asgi_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    django.setup()
    return cast.beside(get_asgi_application(), "/rt")
