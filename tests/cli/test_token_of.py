"""`pub` and `sub` against a server that wants a token: they send `ONCECAST_TOKEN`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Fake, call


@pytest.mark.parametrize("environ, sent", [({"ONCECAST_TOKEN": " a.b.c "}, "Bearer a.b.c"), ({}, None)])
def test_pub_sends_it(fake: Fake, environ: dict[str, str], sent: str | None) -> None:
    """In the header that servers take both kinds in; without the variable there is no header."""
    result = call("pub", "c", "1", ONCECAST_URL=fake.url, **environ)  # type: ignore[arg-type]
    assert 0 == result.exit_code, result.stderr
    (_, headers, _) = fake.posted[0]
    assert sent == {name.lower(): value for name, value in headers.items()}.get("authorization")
