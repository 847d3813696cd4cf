"""Bytes to events and back: no sockets, no clock, no asyncio."""
