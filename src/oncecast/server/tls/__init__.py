"""TLS (RFC 8446, RFC 5246) on the server's port: certificates, handshakes, and connections that are encrypted.

`contexts.py` makes of the settings what OpenSSL is to use, and renews it; `pair.py` reads a certificate and its key,
and `development.py` makes one for localhost. `opening.py` turns an accepted socket into a `channel.py`, a transport as
the event loop's are. Nothing else of the server sees `ssl`.
"""

from __future__ import annotations

from .contexts import Tls, check

__all__ = ["Tls", "check"]
