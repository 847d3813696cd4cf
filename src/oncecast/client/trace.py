"""The trace that a publish belongs to, where the application uses OpenTelemetry.

OpenTelemetry is looked for among the modules that are loaded: an application that traces has it there, and any other
pays nothing for it.
"""

from __future__ import annotations

import sys

from ..wire.traceparent import sampled_trace, traceparent

__all__ = ["current_trace", "current_traceparent"]


def current_trace() -> bytes | None:
    """Return the context of the current span, as in `message.Message.trace`; None without one that is sampled."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    return sampled_trace(api.get_current_span().get_span_context())


def current_traceparent() -> str | None:
    """Return it as text (W3C Trace Context §3.2)."""
    trace = current_trace()
    return None if trace is None else traceparent(trace)
