"""The start page over TLS, in a real browser: each transport works over https and wss on the one port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.web.conftest import Serving, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = ("short-poll", "long-poll", "sse", "websocket")
LIVE = """(kinds) => kinds.every((kind) => {
  const panel = document.querySelector(`[data-panel="${kind}"]`);
  return panel.dataset.state === "live" && Number(panel.querySelector("[data-field=messages]").textContent) >= 3;
})"""


async def test_the_start_page_over_tls(
    serving: Serving, visit: Visiting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four transports are live with the certificate of `--dev --tls`. The browser ignores the unknown CA."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    server = await serving("--dev", "--tls")
    page = await visit(f"https://localhost:{server.port}/", ignore_https_errors=True)
    await page.until(LIVE, list(KINDS))
    secure = await page.page.evaluate("isSecureContext && performance.getEntriesByType('resource').map((e) => e.name)")
    assert secure
    assert all(name.startswith(("https:", "wss:")) for name in secure)
