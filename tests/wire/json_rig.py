"""The values and the refusal that tests of the wire's JSON share."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from oncecast.errors import Refusal

BIG = b"123456789012345678901234567890"
DEEP = b"[" * 200_000 + b"]" * 200_000
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def refused(code: str, call: Any, *args: Any) -> str:
    """The message of the refusal that a call has to end in."""
    with pytest.raises(Refusal) as caught:
        call(*args)
    assert code == caught.value.code
    return caught.value.message
