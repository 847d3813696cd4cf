"""The process of one worker beside an application: `oncecast.server.process.worker`, with a guest."""

from __future__ import annotations

import sys

from ...server.process.worker import main
from . import HOSTING

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], HOSTING))
