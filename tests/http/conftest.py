"""The fixtures of the server's tests: the routes are tested on the server's connection, without a socket."""

from tests.server.conftest import bench, open_site, parse, parse_all, upgrade

__all__ = ["bench", "open_site", "parse", "parse_all", "upgrade"]
