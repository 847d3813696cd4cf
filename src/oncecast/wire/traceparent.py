"""The context of a trace as text: `traceparent` of W3C Trace Context, https://www.w3.org/TR/trace-context/, §3.2.

A text that can't be read is ignored, as §3.2.2.5 wants: whoever traces must not make a publish fail.
"""

from __future__ import annotations

import re

# Of a later version only the fields that this one has are read, and they must end at a hyphen (§4.1).
_TEXT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def parse_traceparent(text: str) -> bytes | None:
    """Return the context, as in `Message.trace`; None where there is none."""
    match = _TEXT.fullmatch(text)
    if match is None or (match[5] is not None and match[1] == "00"):
        return None
    return bytes.fromhex(match[2] + match[3] + match[4])


def traceparent(trace: bytes) -> str:
    """Return the text of a context."""
    text = trace.hex()
    return f"00-{text[:32]}-{text[32:48]}-{text[48:]}"
