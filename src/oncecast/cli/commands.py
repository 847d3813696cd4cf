"""The commands: `oncecast serve`, `pub`, `sub`, `config`, `token`, `key`, `broker`, `compare`, `doctor`, `top`, `demo`
and `bench`.

A command is a module here that is added to `commands` below. Results go to standard output, by `base.put`, all else to
standard error. What goes wrong is one line that says what to do, with one of `base.EXIT_CODES`. Run
`scripts/reference.py` after a change: the page of the commands is made from these declarations.
"""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from .base import quietly
from .bench import bench
from .broker import broker
from .compare import compare
from .demo import demo
from .doctor import doctor
from .keys import key
from .listener import sub
from .publisher import pub
from .server import serve
from .settings import config
from .tokens import token
from .top import top

__all__ = ["commands"]


class _Commands(click.Group):
    """Lists the commands in the order in which a user needs them, and ends each `quietly`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments; this is where click prints the help and the version."""
        with quietly():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with quietly():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself, with examples: oncecast COMMAND --help",
)
@click.version_option(__version__, prog_name="oncecast", message="%(prog)s %(version)s")
def commands() -> None:
    """Publish a message once; every listener gets it.

    Listen by polling, long polling, Server-Sent Events or WebSocket, and resume where you left off.

    \b
    Try it, in three terminals:
      oncecast serve --dev
      oncecast sub news
      oncecast pub news "hello"

    In a checkout: make serve, and .venv/bin/oncecast in place of oncecast.

    Exit codes: 0 done, 1 failed, 2 wrong call or setting, 130 Ctrl-C.
    """


for _command in (serve, pub, sub, config, token, key, broker, compare, doctor, top, demo, bench):
    commands.add_command(_command)
