"""Routes and replies of HTTP: from a request to the transport or the answer. No sockets, no event loop."""
