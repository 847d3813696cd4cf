"""Where settings come from: flags, variables, a TOML file, defaults; and the one line that each mistake gets.

The keys are declared in `server/settings.py`; what is checked, reported and written here is made from that declaration.
To add a source, give it a module that yields `Given` and a line in `sources.load`. Where two settings can contradict
each other, add a rule to `contradictions.check_together`.
"""

from __future__ import annotations

from .sources import DEFAULT_FILE, Loaded, Sources, load
from .text import example_file, to_toml

__all__ = ["DEFAULT_FILE", "Loaded", "Sources", "example_file", "load", "to_toml"]
