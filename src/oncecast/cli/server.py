"""`oncecast serve`: the server, from flags, variables and the settings file."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..server import config
from ..server.settings import DEFAULT_BROKER, MEMORY
from .base import MISUSED, Failure, config_option, in_one_line, masked, warn
from .interrupt import ending_at_once

if TYPE_CHECKING:
    from ..server.guest import Hosting

__all__ = ["serve"]


@click.command(short_help="Run the server.")
@click.option("--dev", is_flag=True, help="For development: any --host, pages from this machine, a demo, first steps.")
@click.option("--host", metavar="H", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="P", help="The port; 0 takes any free one.  [default: 8000]")
@click.option("--workers", metavar="N|auto", help="Processes that serve together; auto: one per core.  [default: 1]")
@click.option(
    "--broker",
    metavar="URL",
    help=f"Where messages are ordered and kept.  [default: {DEFAULT_BROKER}; with --dev, {MEMORY}]",
)
@click.option("--app", metavar="MODULE:NAME", help="An ASGI application to serve on the same port, by uvicorn.")
@config_option
@click.option("--tls-cert", metavar="FILE", multiple=True, help="A certificate chain, PEM; with --tls-key. Repeatable.")
@click.option("--tls-key", metavar="FILE", multiple=True, help="The certificate's private key, PEM. Repeatable.")
@click.option("--tls", is_flag=True, help="With --dev: TLS with a certificate for localhost that is made for you.")
@click.option("--public", is_flag=True, help="Let other machines connect, and so publish.")
@click.option(
    "--origin", "origins", multiple=True, metavar="O", help="Another origin whose pages may connect; repeatable."
)
@click.option(
    "--allowed-host", "hosts", multiple=True, metavar="H", help="A host that requests may be for; repeatable."
)
@click.option("--log", metavar="text|json", help="The form of the server's own log.  [default: text]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
@click.option("--access-log", metavar="off|text|json", help="A line for each request.  [default: off]")
@click.option("--audit-log", metavar="off|text|json", help="A line for each refusal.  [default: text]")
@click.option("--tracing", is_flag=True, help="Spans of OpenTelemetry, for the collector that its variables name.")
@click.pass_context
def serve(
    context: click.Context, /, dev: bool, tls: bool, public: bool, tracing: bool, file: Path | None, **flags: object
) -> None:
    """Serve channels over HTTP and WebSocket until SIGTERM or Ctrl-C.

    A flag wins over its variable (ONCECAST_PORT, ONCECAST_LIMITS__MESSAGE_BYTES), a variable over the settings
    file, the file over the default. Everything that can be set: oncecast config init -

    \b
    Examples:
      oncecast serve --dev
      oncecast serve --dev --tls
      oncecast serve --host 0.0.0.0 --public --tls-cert cert.pem --tls-key key.pem
      oncecast serve --app shop.main:app
      oncecast serve --origin https://app.example --config /etc/oncecast.toml
    """
    given = {**flags, "dev": dev or None, "tls": tls or None, "public": public or None, "tracing": tracing or None}
    sources = config.Sources(file=file, environ=os.environ, flags=given)
    with in_one_line():
        loaded = sources.load()
    warn(loaded.warnings)
    broker = flags.get("broker")
    if isinstance(broker, str) and masked(broker) != broker:
        warn(["--broker has a password, which others on this machine can read: set ONCECAST_BROKER, or password_file="])
    settings = loaded.settings
    with ending_at_once():
        from ..server.run import run  # here, as the other commands do not need a server's imports

        hosting = _hosting() if settings.app is not None else None

    try:
        with in_one_line():
            code = run(settings, lambda: sources.load().settings, hosting)
    except OSError as error:
        raise Failure(_advice(error, settings.host, settings.port), MISUSED) from None
    context.exit(code)


def _hosting() -> Hosting:
    from ..asgi.hosting import HOSTING

    return HOSTING


def _advice(error: OSError, host: str, port: int) -> str:
    """Return why the server can't listen, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there or choose another with --port"
    if error.errno == errno.EACCES and error.filename is None:
        return f"port {port} on {host} is not open to this user: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine: choose another with --host"
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"the server can't start: {where}{error.strerror or error}"
