"""The application of the README runs; that of `docs/how-to/in-your-app.md` passes the type checker too."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs_rig import ROOT, blocks, type_checker

PAGE = ROOT / "docs" / "how-to" / "in-your-app.md"
PRELUDE = """
async def user_of_session(session: str | None) -> str | None:
    return session

"""


def program() -> str:
    """Return the examples, one after the other."""
    return PRELUDE + "\n".join(block.text for block in blocks(PAGE) if block.mark == "app")


def test_the_examples_pass_the_type_checker(tmp_path: Path) -> None:
    """The examples of the how-to pass mypy in strict mode."""
    (tmp_path / "app.py").write_text(program())
    done = subprocess.run(
        type_checker("app.py"), cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert 0 == done.returncode, done.stdout


async def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their functions decide, change and refuse as the page says."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(program(), "app.py", "exec"), scope)
    cast = scope["cast"]
    transport = httpx.ASGITransport(cast)
    async with cast, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        url = "/v1/channels/chat.a"
        assert 401 == (await http.get(url)).status_code
        http.cookies.set("session", "ann")
        assert 200 == (await http.get(url)).status_code
        assert 403 == (await http.get("/v1/channels/user.bob")).status_code
        assert 201 == (await http.post(url, json={"text": "hello"})).status_code
        assert "No spam, please." == (await http.post(url, json={"text": "spam"})).json()["error"]["message"]
        assert {"text": "hello", "by": "ann"} == (await http.get(url)).json()["messages"][0]["data"]


async def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its application publishes, and a page below its mount gets the message."""
    monkeypatch.chdir(tmp_path)
    (text,) = (block.text for block in blocks(ROOT / "README.md") if "FastAPI" in block.text)
    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(text, "app.py", "exec"), scope)
    app = scope["app"]
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), http:
        assert 200 == (await http.post("/orders", params={"item": "tea"})).status_code
        answer = (await http.get("/rt/v1/channels/orders")).json()
    assert [{"item": "tea"}] == [message["data"] for message in answer["messages"]]
