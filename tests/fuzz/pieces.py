"""How a target's input is cut: the same bytes in many ways, as a network could bring them.

An input begins with two bytes: the first chooses among a target's variants, the second how the rest is cut. So a fuzzer
can change the cut and the content apart from each other, and an input that fails says all that is needed to repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["CUTS", "opened", "pieces"]

HEAD_BYTES = 2
CUTS = 32  # ways of cutting begin there that are a few pieces of random sizes
PIECES = 8  # each is a call of the parser, and so costs a fuzzer as much as a small input


def opened(data: bytes) -> tuple[int, int, bytes]:
    """Return the variant, the way of cutting, and the content."""
    head = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")
    return head[0], head[1], data[HEAD_BYTES:]


def pieces(content: bytes, way: int) -> Iterator[bytes]:
    """Cut bytes: one by one for 0, in two for the next, else in at most `PIECES` of random sizes that `way` seeds."""
    if way == 0:
        for at in range(len(content)):
            yield content[at : at + 1]
        return
    if way < CUTS:
        at = len(content) * way // CUTS
        yield from (content[:at], content[at:])
        return
    # Not `random.Random`: to seed one takes longer than many of the inputs.
    state, at, longest = way, 0, 1 << (way & 7)
    for _ in range(PIECES - 1):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        size = 1 + (state >> 16) % longest
        if at + size >= len(content):
            break
        yield content[at : at + size]
        at += size
    if at < len(content):
        yield content[at:]
