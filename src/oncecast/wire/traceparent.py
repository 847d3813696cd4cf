"""The context of a trace: 25 bytes in a message, and as text `traceparent` (W3C Trace Context, §3.2).

The standard is https://www.w3.org/TR/trace-context-2/. A text that can't be read is ignored, as §3.2.2.5 wants: whoever
traces must not make a publish fail.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

FLAGS = 0x03  # sampled, and random trace id; the others are to be zero (§3.2.2.5.2)
# Of a later version only the fields that this one has are read, and they must end at a hyphen (§4.1).
_TEXT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


class TraceContext(NamedTuple):
    """The ids of a trace and of a span in it, and the flags."""

    trace_id: int
    span_id: int
    flags: int


def pack_trace(trace_id: int, span_id: int, flags: int) -> bytes:
    """Return the bytes that a message carries: see `Message.trace`."""
    return b"%b%b%c" % (trace_id.to_bytes(16), span_id.to_bytes(8), flags & FLAGS)


def unpack_trace(trace: bytes) -> TraceContext:
    """Return what these bytes say."""
    return TraceContext(int.from_bytes(trace[:16]), int.from_bytes(trace[16:24]), trace[24])


def sampled_trace(context: Any) -> bytes | None:
    """Return the bytes of an OpenTelemetry `SpanContext`; None where it is not valid, or not sampled."""
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return pack_trace(context.trace_id, context.span_id, context.trace_flags)


def parse_traceparent(text: str | None) -> bytes | None:
    """Return the bytes of a context; None where there is no text, or the text is none."""
    match = None if text is None else _TEXT.fullmatch(text)
    if match is None or (match[5] is not None and match[1] == "00"):
        return None
    return pack_trace(int(match[2], 16), int(match[3], 16), int(match[4], 16))


def traceparent(trace: bytes) -> str:
    """Return the text of a context."""
    text = trace.hex()
    return f"00-{text[:32]}-{text[32:48]}-{text[48:]}"
