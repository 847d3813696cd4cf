"""TLS (RFC 8446, RFC 5246) on the server's port: certificates, handshakes, and connections that are encrypted.

`contexts.py` makes of the settings what OpenSSL is to use, and renews it. `opening.py` turns an accepted socket into a
`channel.py`, which is a transport like that of the event loop. Nothing outside of this folder sees `ssl`.
"""

from __future__ import annotations

from .contexts import Tls

__all__ = ["Tls"]
