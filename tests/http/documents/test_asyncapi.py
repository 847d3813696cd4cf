"""The AsyncAPI document is what AsyncAPI's own schema allows, which the npm package `@asyncapi/specs` has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oncecast.http.documents.asyncapi import asyncapi

SCHEMA = (
    Path(__file__).parent.parent.parent / "peers" / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft7Validator:
    """The schema of AsyncAPI 3.0, which is one of draft 7."""
    assert SCHEMA.is_file(), "run npm ci --prefix tests/peers, as make test does"
    read: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return jsonschema.Draft7Validator(read)


def test_asyncapi_is_asyncapi(schema: jsonschema.Draft7Validator) -> None:
    """The document is what AsyncAPI 3.0 allows."""
    assert [] == [f"{list(error.path)}: {error.message[:200]}" for error in schema.iter_errors(asyncapi())]


@pytest.mark.parametrize("change", [{"asyncapi": "4.0.0"}, {"operations": {"a": {"action": "shout"}}}, {"more": 1}])
def test_the_check_can_fail(schema: jsonschema.Draft7Validator, change: dict[str, Any]) -> None:
    """A version, an action and a field that AsyncAPI does not know are refused."""
    assert not schema.is_valid(asyncapi() | change)
