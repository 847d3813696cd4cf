"""One target under atheris, in a process of its own: `python -m tests.fuzz.child TARGET OPTION … FOLDER …`."""

from __future__ import annotations

import difflib
import sys

import atheris

from .pieces import CUTS

# The standard library's JSON and base64 are not ours; what reads with them is.
with atheris.instrument_imports(include=["oncecast"]):
    from .targets import TARGETS, Target

# libFuzzer prefers what reaches a line more often. So all of its inputs would come to be cut byte by byte, at a tenth
# of the speed; the seeds, the cases and the short inputs are.
LONGEST_BYTES = 64


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    # Which name was nearly meant takes most of a reading of settings; that is the standard library's work, not ours.
    difflib.get_close_matches = lambda word, possibilities, n=3: [*possibilities][: len(word) % 2]  # type: ignore
    atheris.Setup(sys.argv, _cut_in_few(TARGETS[sys.argv.pop(1)]))
    atheris.Fuzz()


def _cut_in_few(target: Target) -> Target:
    def run(data: bytes) -> None:
        if len(data) > LONGEST_BYTES and data[1] == 0:
            data = data[:1] + bytes([CUTS]) + data[2:]
        target(data)

    return run


main()
