"""The command line: `oncecast serve`, `pub`, `sub` and `config`.

A command is a module here that is added to `main` below. Results go to standard output, all else to standard error;
what goes wrong is one line that says what to do, with exit code 2 for a wrong call or setting and 1 for all else.
"""

from __future__ import annotations

import click

from .. import __version__
from .bench import bench
from .listener import sub
from .publisher import pub
from .server import serve
from .settings import config

__all__ = ["main"]


class _InOrder(click.Group):
    """Lists the commands in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself, with examples: oncecast COMMAND --help",
)
@click.version_option(__version__, prog_name="oncecast", message="%(prog)s %(version)s")
def main() -> None:
    """Publish a message once; every listener gets it.

    Listeners come by polling, long polling, Server-Sent Events or WebSocket, and resume where they left off.

    \b
    Try it, in three terminals:
      oncecast serve --dev
      oncecast sub news
      oncecast pub news "hello"
    """


for _command in (serve, pub, sub, config, bench):
    main.add_command(_command)
