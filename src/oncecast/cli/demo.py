"""`oncecast demo`: run one of the examples, with nothing else to start.

The examples are the folders of `examples/` in a checkout, and of `oncecast/examples/` in a wheel, which the build hook
puts there. A folder with a `server.py` is an example; the first line of that module's docstring describes it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from .base import FAILED, MISUSED, Failure, put, say

__all__ = ["demo"]

PLACES = (  # the first that is there: an installed package, a checkout
    Path(__file__).parent.parent / "examples",
    Path(__file__).parent.parent.parent.parent / "examples",
)
PACKAGE = "oncecast_examples"  # as which a folder is imported, whatever else is called `examples` on the path
NEEDED = ("uvicorn", "httptools", "websockets", "starlette")
STOP_SECONDS = 5  # for requests under way at the end
BACKLOG = 1024


@click.command(short_help="Run an example: chat, ticker and others.")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="P",
    help="The port; 0 takes any free one.",
)
def demo(name: str | None, host: str, port: int) -> None:
    """Run one of the examples until SIGTERM or Ctrl-C. Without a NAME, list them.

    An example is a small application with Oncecast in it. Needs the extra: pip install 'oncecast[demo]'

    \b
    Examples:
      oncecast demo
      oncecast demo chat
      oncecast demo ticker --port 9000
    """
    found = _examples()
    if name is None:
        for each, folder in found.items():
            put(f"{each:<14}{_described(folder)}")
        return
    if name not in found:
        raise Failure(f"there is no example {name[:40]!r}: give one of {', '.join(found)}", MISUSED)
    missing = [each for each in NEEDED if importlib.util.find_spec(each) is None]
    if missing:
        raise _needs(missing[0])
    application = _application(found[name])
    with _listening(host, port) as listener:
        _serve(name, application, listener)


def _examples() -> dict[str, Path]:
    """Return the folder of each example. Raises `Failure` where there are none."""
    for place in PLACES:
        found = {server.parent.name: server.parent for server in sorted(place.glob("*/server.py"))}
        if found:
            return found
    raise Failure("the examples are not in this package: install a wheel, or run this in a clone", FAILED)


def _described(folder: Path) -> str:
    """Return the first line of the docstring of an example's server, which is not imported for it."""
    text = ast.get_docstring(ast.parse((folder / "server.py").read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def _needs(package: str) -> Failure:
    return Failure(f"the examples need {package}: pip install 'oncecast[demo]'", FAILED)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `Failure`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        number = error.errno or 0  # below zero for a name that can't be found
        reason = (os.strerror(number) if number > 0 else error.strerror or str(error)).lower()
        text = f"can't listen on {host}:{port}: {reason}: give another --port, 0 for any, or another --host"
        raise Failure(text, MISUSED) from None


def _application(folder: Path) -> Any:
    """Return `app` of an example's `server.py`, which may import modules beside it by relative imports."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    try:
        return importlib.import_module(f"{PACKAGE}.server").app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("oncecast", PACKAGE)):
            raise
        raise _needs(error.name) from None


def _serve(name: str, application: Any, listener: socket.socket) -> None:
    """Serve an example on `listener`, until a signal ends it."""
    import uvicorn  # here, so that the other commands start without it

    config = uvicorn.Config(application, log_level="warning", lifespan="on", timeout_graceful_shutdown=STOP_SECONDS)
    server = uvicorn.Server(config)
    host, port = listener.getsockname()[:2]
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    here = f"localhost:{port}" if ipaddress.ip_address(host).is_unspecified else address
    say(f"{name} is listening on {address}. Open http://{here}/ in two windows. Ctrl-C ends it.")
    for end in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises the signal that has ended it again
        signal.signal(end, signal.SIG_IGN)
    server.run(sockets=[listener])
    if not server.started:
        raise Failure(f"the example {name} did not start: its error stands above", FAILED)
