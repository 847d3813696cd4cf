"""From the settings of `[auth]` to what verifies credentials: files are read, and mistakes are one line."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from oncecast.errors import ConfigurationError, Refusal
from oncecast.policy.keys import parse_pem
from oncecast.policy.server_keys import hash_line, make_key
from oncecast.server.auth import build_authenticator
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Settings, revocation_seconds
from oncecast.server.tls import pair
from tests.token_rig import NOW, SECRET, claims, private_key, private_pem, public_pem, token

KEY = make_key(bytes(32))
LINE = hash_line("shop", KEY)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with keys, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("secrets").write_text(f"\n  {'o' * 32}\r\n{SECRET}\n")
    Path("short").write_text("x" * 31)
    Path("empty").write_text("\n \n")
    Path("binary").write_bytes(b"\xff" * 40)
    Path("public.pem").write_bytes(public_pem(private_key("RS256")) + public_pem(private_key("EdDSA")))
    Path("private.pem").write_bytes(private_pem(private_key("EdDSA")))


def test_nothing_is_set() -> None:
    """Without keys credentials are ignored."""
    assert build_authenticator(AuthSettings()) is None


def test_a_server_key_alone() -> None:
    """A server's key is accepted, and a token is refused."""
    authenticator = build_authenticator(AuthSettings(server_keys=(LINE,)))
    assert authenticator is not None
    assert "server" == authenticator.identify(KEY, "", NOW).kind
    with pytest.raises(Refusal, match="takes no tokens"):
        authenticator.identify(token(), "", NOW)


def test_all_that_can_be_set() -> None:
    """The secret of the variable, or each line of a file; each key of a PEM file; and what tokens must be."""
    authenticator = None
    for auth in (AuthSettings(secret=SECRET), AuthSettings(secret_file="secrets", public_key_file="public.pem")):
        authenticator = build_authenticator(
            msgspec.structs.replace(auth, issuer="i", audience=("a",), leeway_seconds=5, max_token_seconds=100)
        )
        assert authenticator is not None
        text = token(claims(iss="i", aud="a"))
        assert NOW + 65 == authenticator.identify(text, "", NOW).expires
        for wrong in (claims(aud="a"), claims(iss="i"), claims(iss="i", aud="a", exp=NOW + 106)):
            with pytest.raises(Refusal):
                authenticator.identify(token(wrong), "", NOW)
    assert authenticator is not None
    with pytest.raises(Refusal, match="'ES256' are not taken here: sign them with EdDSA, HS256, RS256"):
        authenticator.identify(token(key=private_key("ES256"), algorithm="ES256"), "", NOW)
    for key, algorithm in (("o" * 32, "HS256"), (private_key("RS256"), "RS256"), (private_key("EdDSA"), "EdDSA")):
        authenticator.identify(token(claims(iss="i", aud="a"), key=key, algorithm=algorithm), "", NOW)


def test_what_is_served_while_the_keys_of_the_issuer_are_awaited() -> None:
    """What a key here has signed; what the issuer may have signed is asked to come again, and nothing else is."""
    auth = AuthSettings(secret=SECRET, public_key_file="public.pem", jwks_url="https://login.example.com/jwks")
    awaiting = build_authenticator(auth)
    fetched = build_authenticator(auth, parse_pem(public_pem(private_key("ES256")), "f"))
    assert awaiting is not None
    assert fetched is not None
    for own, algorithm in ((SECRET, "HS256"), (private_key("RS256"), "RS256"), (private_key("EdDSA"), "EdDSA")):
        assert "ann" == awaiting.identify(token(key=own, algorithm=algorithm), "", NOW).subject
    of_issuer = token(key=private_key("ES256"), algorithm="ES256")
    damaged = token(key=private_key("EdDSA"), algorithm="EdDSA").rpartition(".")[0] + "." + "A" * 86
    away, wrong = "unavailable", "unauthorized"
    for text, code in ((of_issuer, away), (damaged, away), (token(key="x" * 32), wrong), ("x", wrong)):
        with pytest.raises(Refusal) as caught:
            awaiting.identify(text, "", NOW)
        assert code == caught.value.code, text
    assert "ann" == fetched.identify(of_issuer, "", NOW).subject
    with pytest.raises(Refusal, match="signature is wrong"):
        fetched.identify(damaged, "", NOW)


MISTAKES: dict[str, tuple[AuthSettings, str]] = {
    "a short secret": (AuthSettings(secret="x" * 31), "auth.secret has 31 bytes, and HS256 needs 32: make one with"),
    "a short line": (AuthSettings(secret_file="short"), "auth.secret_file: short has 31 bytes, and HS256 needs 32"),
    "no file": (AuthSettings(secret_file="none"), "auth.secret_file: none: No such file or directory; give a file"),
    "an empty file": (AuthSettings(secret_file="empty"), "auth.secret_file: empty is empty: write the secret into it"),
    "a binary file": (AuthSettings(secret_file="binary"), "auth.secret_file: binary is not UTF-8"),
    "a public key as a secret": (
        AuthSettings(secret_file="public.pem"),
        "auth.secret_file: public.pem is a key",
    ),
    "no public key": (
        AuthSettings(public_key_file="secrets"),
        "auth.public_key_file: secrets has no public key",
    ),
    "a private key": (AuthSettings(public_key_file="private.pem"), "auth.public_key_file: private.pem holds a private"),
    "another algorithm": (
        AuthSettings(secret=SECRET, algorithms=("HS512",)),
        "auth.algorithms: 'HS512' is not one of HS256, RS256, ES256, EdDSA",
    ),
    "none": (AuthSettings(secret=SECRET, algorithms=("none",)), "auth.algorithms: 'none' is not one of"),
    "an algorithm without a key": (
        AuthSettings(secret=SECRET, algorithms=("HS256", "RS256")),
        "auth.algorithms: RS256 has no key here: set public_key_file, or leave RS256 out",
    ),
    "a key without an algorithm": (
        AuthSettings(secret=SECRET, public_key_file="public.pem", algorithms=("HS256", "RS256")),
        "auth.algorithms lacks EdDSA, which a key here is for: add it, or remove that key",
    ),
    "a key itself": (AuthSettings(server_keys=(KEY,)), "server_keys has an entry that is a key itself"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    """Each mistake in the settings of tokens is one line that says what to do, and repeats no secret."""
    auth, message = MISTAKES[name]
    with pytest.raises(ConfigurationError) as caught:
        build_authenticator(auth)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("x" * 31, SECRET, KEY))


def test_a_server_without_tokens_does_not_import_cryptography() -> None:
    """A server without tokens does not import the packages that verify them."""
    code = "import sys, oncecast.server.run, oncecast.cli.commands; print({'jwt', 'cryptography'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "set()\n" == result.stdout


async def test_keys_are_read_again_at_a_reload() -> None:
    """The line of a secret that is removed counts no more, also for a token that was verified before."""
    settings = Settings(port=0, auth=AuthSettings(secret_file="secrets"))
    server = Server(settings)
    await server.start()
    try:
        text = token(claims(iat=time.time(), exp=time.time() + 60))
        assert "ann" == server.app.verify(text, "").subject
        Path("secrets").write_text("n" * 32)  # noqa: ASYNC240 - a few bytes
        server.reload(settings)
        with pytest.raises(Refusal, match="signature is wrong"):
            server.app.verify(text, "")
    finally:
        await server.stop(0)


def test_a_file_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user is refused with the advice to let the server read it."""

    def read_whole(path: Path, most: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("oncecast.server.auth.read_whole", read_whole)
    monkeypatch.setattr(pair, "read_whole", read_whole)
    with pytest.raises(
        ConfigurationError, match=r"^auth.secret_file: a.secret: Permission denied; let this user read it$"
    ):
        build_authenticator(AuthSettings(secret_file="a.secret"))
    with pytest.raises(ConfigurationError, match=r"^tls_key: a.key: Permission denied; let this user read it$"):
        pair.read_file("tls_key", "a.key", "the key")


@pytest.mark.parametrize("leeway, longest", [(30.0, 600.0), (300.0, 60.0), (0.0, 604_800.0)])
@pytest.mark.parametrize("dated", [True, False])
def test_a_revocation_outlives_each_token_that_it_refuses(leeway: float, longest: float, dated: bool) -> None:
    """At the last moment at which the longest token of before counts, it is still known that it was revoked."""
    auth = AuthSettings(secret=SECRET, leeway_seconds=leeway, max_token_seconds=longest)
    authenticator = build_authenticator(auth)
    assert authenticator is not None
    revoked = float(int(NOW))
    ends = revoked + leeway + longest + leeway  # issued as late, and for as long, as it may be
    text = token(claims(iat=revoked + leeway, exp=ends) if dated else claims(iat=None, exp=revoked + longest + leeway))
    last = ends + leeway if dated else revoked + longest + 2 * leeway
    found = authenticator.identify(text, "", last - 0.001)
    assert found.issued is not None
    assert found.issued <= revoked  # so the revocation is about it
    assert found.expires is not None
    assert revoked + revocation_seconds(auth) >= found.expires
