"""The pytest plugin: the fixtures `oncecast` and `oncecast_app`.

pytest imports this file wherever the package is installed. Invariant: it costs nothing there, so it imports the rest
only when a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .app.fixture import OncecastFixture

__all__ = ["oncecast", "oncecast_app"]


@pytest.fixture
def oncecast_app() -> Any:
    """Return the `Oncecast` of your application, or a list of several, which the fixture `oncecast` is to use.

    Override it in your conftest.py. By default there is none.
    """
    return None


@pytest.fixture
def oncecast(oncecast_app: Any) -> Iterator[OncecastFixture]:
    """A log in memory for this test, instead of the broker of `oncecast_app`.

    Its listeners receive what the application publishes: subscribe(), publish(), drop(), resume(), advance(seconds),
    assert_delivered(). There is no socket, and nothing sleeps. See `oncecast.testing.app.OncecastFixture`.
    """
    from .app.fixture import OncecastFixture

    fixture = OncecastFixture()
    try:
        for cast in oncecast_app if isinstance(oncecast_app, list | tuple) else [oncecast_app]:
            if cast is not None:
                fixture.use(cast)
        yield fixture
    finally:
        fixture.close()
