"""The fixture of sessions and carriers on a fake clock."""

from __future__ import annotations

import pytest

from tests.session_rig import Rig


@pytest.fixture
def rig() -> Rig:
    """A node with nothing in its log."""
    return Rig()
