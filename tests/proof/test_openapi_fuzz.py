"""A server answers as its OpenAPI document says, whatever is asked: a short run of `openapi_fuzz.py`."""

from __future__ import annotations

import re

from .openapi_fuzz import ask

SECONDS = 180.0  # a quiet machine needs ten


async def test_a_server_does_what_its_document_says() -> None:
    """schemathesis asks each operation, and finds no answer that the document does not have."""
    outcome = await ask("--max-examples", "10", "--phases", "coverage,fuzzing", seed=14, seconds=SECONDS)
    assert 0 == outcome.status, outcome.text
    assert re.search(r"Tested: +9\b", outcome.text), outcome.text
    assert outcome.answered > 300
