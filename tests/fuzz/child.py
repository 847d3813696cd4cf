"""One target under atheris, in a process of its own: `python -m tests.fuzz.child TARGET OPTION … FOLDER …`."""

from __future__ import annotations

import sys

import atheris

# The standard library's JSON and base64 are not ours; what reads with them is.
with atheris.instrument_imports(include=["oncecast"]):
    from .targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


main()
