"""The command line's entry. What the commands are stands in `commands.py`.

Invariant: the commands are imported by `main`, not here, so that Ctrl-C has no traceback even while they are.
"""

from __future__ import annotations

from .interrupt import ending_at_once

__all__ = ["main"]


def main(prog_name: str | None = None) -> None:
    """Run the command that the process's arguments name, and exit. `prog_name` is what its help calls it."""
    with ending_at_once():
        from .commands import commands
    commands(prog_name=prog_name)
