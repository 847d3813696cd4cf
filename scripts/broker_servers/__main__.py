"""`scripts/brokers`: install, start, stop and list the servers that a person uses."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .kinds import KINDS, standing
from .system import Broken, Missing


def main(arguments: Sequence[str]) -> int:
    """Run `scripts/brokers`."""
    verb, *names = arguments or ("",)
    unknown = [name for name in names if name not in KINDS]
    if verb not in ("install", "start", "stop", "status") or unknown:
        print(f"usage: scripts/brokers install|start|stop|status [{'|'.join(KINDS)}]…", file=sys.stderr)
        return 2
    failed = False
    for name in names or KINDS:
        server = standing(name)
        try:
            if verb in ("install", "start"):
                KINDS[name].install()
            if verb == "start":
                server.start()
            elif verb == "stop":
                server.stop()
        except (Missing, Broken) as error:
            print(f"{name:<12} {error}", file=sys.stderr)
            failed = True
            continue
        if verb != "install":
            print(f"{name:<12} {f'running, {server.url}' if server.pid else 'stopped'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
