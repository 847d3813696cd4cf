"""`oncecast key create`: a key for one of the operator's own servers."""

from __future__ import annotations

import os

import click

from ..policy.server_keys import hash_line, make_key
from .base import in_one_line, put, say

__all__ = ["key"]


@click.group(short_help="Make a key for a server of yours.")
def key() -> None:
    """Make a key for a server of yours. It may do everything, so it belongs on servers only.

    \b
    Examples:
      oncecast key create --name shop
    """


@key.command()
@click.option("--name", default="server", show_default=True, metavar="N", help="Its name in the settings.")
def create(name: str) -> None:
    """Print a new key, and the line that goes into the settings.

    The line has a hash of the key only, so the key can't be had from it again. To replace a key, add the line of a new
    one, move your servers to that, and then remove the old line.

    \b
    Examples:
      oncecast key create
      oncecast key create --name shop-2026
    """
    with in_one_line():
        made = make_key(os.urandom(32))
        line = hash_line(name, made)
    put(f"key   {made}")
    put(f"line  {line}")
    say("The key is not shown again: keep it now. Add the line to server_keys in [auth], and send the server SIGHUP.")
