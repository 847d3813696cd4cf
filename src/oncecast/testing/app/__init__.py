"""For tests of applications: the fixture `oncecast` of the pytest plugin, and its parts.

The plugin itself is `testing/plugin.py`. It imports this only once a test asks for the fixture.
"""

from .conversation import AsgiConversation
from .fixture import OncecastFixture
from .listening import FixtureListener
from .socket import AsgiSocket, HandshakeRefused, PortalSocket, SocketClosed

__all__ = [
    "AsgiConversation",
    "AsgiSocket",
    "FixtureListener",
    "HandshakeRefused",
    "OncecastFixture",
    "PortalSocket",
    "SocketClosed",
]
