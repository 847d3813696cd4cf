"""New settings for a running server: which of them apply at once, and which need a restart.

To let another setting change in place, take it out of `FIXED` and apply it in `Server.reload`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from ..errors import ConfigurationError
from .auth import build_authenticator
from .settings import Settings
from .tls import check

__all__ = ["FIXED", "ReadSettings", "read_again"]

logger = logging.getLogger("oncecast.server")

# The sockets, the processes and the broker.
FIXED = ("host", "port", "workers", "app", "broker", "durability", "dev", "proxy_protocol", "tracing")
FIXED_RETENTION = ("key_seconds",)

ReadSettings = Callable[[], Settings]  # the settings as their sources are now; raises `ConfigurationError`


def read_again(current: Settings, read: ReadSettings) -> Settings | None:
    """Return the settings that hold from now on, or None where they are in error and the old ones stay.

    Logs what needs a restart, and what is wrong: settings, certificate and keys are checked here, as a whole.
    """
    try:
        wanted = read()
        if wanted.tls_cert:
            check(wanted)
        build_authenticator(wanted.auth)
    except ConfigurationError as error:
        logger.error("the settings stay as they were: %s", error)
        return None
    waiting = [name for name in FIXED if getattr(wanted, name) != getattr(current, name)]
    if bool(wanted.tls_cert) != bool(current.tls_cert):
        waiting += ["tls_cert", "tls_key"]
    kept, asked = current.retention, wanted.retention
    waiting_too = [name for name in FIXED_RETENTION if getattr(asked, name) != getattr(kept, name)]
    if waiting or waiting_too:
        names = [*waiting, *(f"retention.{name}" for name in waiting_too)]
        logger.warning("these settings apply after a restart only: %s", ", ".join(names))
    logger.info("the settings have been read again")
    retention = msgspec.structs.replace(asked, **{name: getattr(kept, name) for name in waiting_too})
    return msgspec.structs.replace(wanted, retention=retention, **{name: getattr(current, name) for name in waiting})
