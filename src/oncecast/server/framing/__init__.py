"""The framing of the native server: WebSocket frames, and events in chunks."""
