"""The applications of the ASGI benchmark: one for each library, with the same publisher and the same message."""
