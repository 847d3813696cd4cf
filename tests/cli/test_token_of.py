"""`pub` and `sub` against a server that wants a token: they send `ONCECAST_TOKEN`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Fake, call, complaint


@pytest.mark.parametrize("environ, sent", [({"ONCECAST_TOKEN": " a.b.c "}, "Bearer a.b.c"), ({}, None)])
def test_pub_sends_it(fake: Fake, environ: dict[str, str], sent: str | None) -> None:
    """In the header that servers take both kinds in; without the variable there is no header."""
    result = call("pub", "c", "1", ONCECAST_URL=fake.url, **environ)  # type: ignore[arg-type]
    assert 0 == result.exit_code, result.stderr
    (_, headers, _) = fake.posted[0]
    assert sent == {name.lower(): value for name, value in headers.items()}.get("authorization")


@pytest.mark.parametrize("command", [("pub", "c", "1"), ("sub", "c"), ("sub", "c", "--no-follow")])
@pytest.mark.parametrize("token", ["Bearer a.b.c", "a\nb", "ü", "a" * 8193])
def test_what_can_be_no_token(fake: Fake, command: tuple[str, ...], token: str) -> None:
    """It is a wrong call, named at once, and nothing is asked or repeated."""
    expected = "ONCECAST_TOKEN is no token and no key: 1 to 8192 visible ASCII characters"
    assert expected == complaint(call(*command, ONCECAST_URL=fake.url, ONCECAST_TOKEN=token), 2)
    assert [] == fake.posted
    assert [] == fake.asked
