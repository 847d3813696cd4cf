"""What a server prints about itself when it starts: one line for the log, and first steps for development.

A broker's URL is shown without a password.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Sequence

from .. import __version__
from .settings import SQLITE, Settings, may_be_reached

__all__ = ["ALONE", "first_steps", "started"]

ALONE = ", without access rules and so for this machine only"  # what opens it is in the reference: `public`

_PASSWORD = re.compile(r"(?<=://)[^/]*@")


def started(settings: Settings, sockets: Sequence[socket.socket], workers: int) -> str:
    """Return the line: version, process, workers, broker, and where it listens."""
    broker = _PASSWORD.sub("", settings.broker)
    kept = f" (durability {settings.durability})" if settings.broker.startswith(SQLITE) else ""
    urls = " and ".join(_url(settings, *sock.getsockname()[:2]) for sock in sockets)
    many = "1 worker" if workers == 1 else f"{workers} workers"
    served = "" if may_be_reached(settings) else ALONE
    return f"oncecast {__version__}, pid {os.getpid()}, {many}, broker {broker}{kept}{served}, is listening on {urls}"


def first_steps(settings: Settings, port: int) -> str:
    """Return the lines for a person at a terminal, with commands to copy."""
    url = _url(settings, settings.host, port)
    own = settings.tls_cert[0] if settings.tls and settings.tls_cert else None  # nobody trusts it by itself
    curl = "curl" if own is None else f"curl --cacert {shlex.quote(own)}"
    lines = [
        f"Oncecast is listening on {url}",
        f"  start page   {url}/" if settings.app is None else f"  application  {url}/  ({settings.app})",
        f"  publish      {curl} -d '{{\"t\":1}}' {url}/v1/channels/news",
        f"  listen       {curl} -N -H 'Accept: text/event-stream' {url}/v1/channels/news",
    ]
    if own is not None:
        trusted = shlex.quote(own)
        lines += [
            f"  trust        export SSL_CERT_FILE={trusted}        (Python, oncecast pub and sub)",
            f"               export NODE_EXTRA_CA_CERTS={trusted}  (Node)",
            "               a browser: go on past its warning once, or import that file as an authority",
        ]
    lines.append("  stop         Ctrl-C")
    return "\n".join(lines)


def _url(settings: Settings, host: str, port: int) -> str:
    return f"{'https' if settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
