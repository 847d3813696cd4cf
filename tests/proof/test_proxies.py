"""The proof of quiet connections runs, and finds nothing behind a proxy with the file of `deploy/proxies`."""

from __future__ import annotations

from pathlib import Path

from tests.brokers.certificates import Authority
from tests.proof.proxies import broken_quiet


async def test_quiet_connections_are_kept(tmp_path: Path) -> None:
    """Each transport hears the message that ends the quiet on the connection that it had."""
    pair = Authority(tmp_path, "authority").issue("localhost")
    assert [] == await broken_quiet(["haproxy"], tmp_path, pair, 0.5)
