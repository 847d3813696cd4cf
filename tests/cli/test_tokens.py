"""`oncecast token create|inspect`, and `config explain --token`."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from oncecast.policy.server_keys import hash_line, make_key
from tests.cli.conftest import Fake, call, complaint
from tests.token_rig import SECRET, private_key, private_pem, public_pem, token

KEY = make_key(bytes(32))
CREATE = ["token", "create", "--sub", "ann", "--subscribe", "user.{sub}", "--subscribe", "news", "--ttl", "60"]


def shown(*arguments: str, code: int = 0, given: str = "", **environ: str) -> dict[str, str]:
    """Return the lines of `token inspect` by their first word."""
    result = call("token", "inspect", *arguments, stdin=given.encode(), **environ)
    assert code == result.exit_code, result.output
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in result.stdout.splitlines())}


def test_a_token_is_made_and_inspected() -> None:
    """It has what it was asked for, and the server with the same settings takes it."""
    made = call(
        *[
            "token",
            "create",
            "--sub",
            "ann",
            "--subscribe",
            "user.{sub}",
            "--subscribe",
            "news",
            "--ttl",
            "60",
            "--kid",
            "1",
        ],
        ONCECAST_AUTH__SECRET=SECRET,
        ONCECAST_AUTH__ISSUER="us",
        ONCECAST_AUTH__AUDIENCE="a,b",
    ).stdout
    lines = shown(
        "-", given=made, ONCECAST_AUTH__SECRET=SECRET, ONCECAST_AUTH__ISSUER="us", ONCECAST_AUTH__AUDIENCE="b"
    )
    assert {"alg": "HS256", "typ": "JWT", "kid": "1"} == json.loads(lines["head"])
    claims = json.loads(lines["claims"])
    assert 60 == claims["exp"] - claims["iat"]
    assert ("user ann", "user.ann, news", "nothing", "taken") == (
        lines["who"].replace("token", "user"),
        lines["subscribe"],
        lines["publish"],
        lines["verdict"],
    )


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_signs(algorithm: str) -> None:
    """The type of the key selects the algorithm."""
    Path("private.pem").write_bytes(private_pem(private_key(algorithm)))
    Path("public.pem").write_bytes(public_pem(private_key(algorithm)))
    made = call("token", "create", "--key", "private.pem").stdout.strip()
    lines = shown(made, ONCECAST_AUTH__PUBLIC_KEY_FILE="public.pem")
    assert algorithm == json.loads(lines["head"])["alg"]
    assert ("token without a sub", "as the rules of the channels say", "taken") == (
        lines["who"],
        lines["subscribe"],
        lines["verdict"],
    )


def test_the_last_of_several_secrets_signs() -> None:
    """The newest one stands last; tokens of the others are still taken."""
    Path("secrets").write_text(f"{'o' * 32}\n{SECRET}\n")
    made = call("token", "create", ONCECAST_AUTH__SECRET_FILE="secrets").stdout.strip()
    assert "taken" == shown(made, ONCECAST_AUTH__SECRET=SECRET)["verdict"]


def test_what_is_wrong_with_a_token() -> None:
    """The verdict is the server's own refusal, and what can be read is shown all the same."""
    lines = shown(token(), code=1, ONCECAST_AUTH__SECRET=SECRET)
    assert "refused with 401 unauthorized: The token has expired: get a fresh one." == lines["verdict"]
    assert "ann" == json.loads(lines["claims"])["sub"]
    assert "refused with 401" in shown("x.y.z", code=1, ONCECAST_AUTH__SECRET=SECRET)["verdict"]
    assert "the signature was not checked" in shown(token(), code=1)["verdict"]
    assert "server shop" == shown(KEY, ONCECAST_AUTH__SERVER_KEYS=hash_line("shop", KEY))["who"]


def test_mistakes() -> None:
    """Each mistake is an error of one line that says what to do."""
    assert complaint(call("token", "create"), 2).startswith("there is no secret to sign with")
    assert complaint(call("token", "create", "--key", "none.pem"), 2).startswith("none.pem: No such file or directory")
    Path("public.pem").write_bytes(public_pem(private_key("RS256")))
    assert "public.pem is no private key in PEM" in complaint(call("token", "create", "--key", "public.pem"), 2)
    assert complaint(call("token", "inspect", "-", stdin=b" \n"), 2).startswith("there is no token")
    expected = "public.pem is a file, and not a token: give - and the file on standard input"
    assert expected == complaint(call("token", "inspect", "public.pem"), 2)
    assert "the signature was not checked" in shown("x" * 5000, code=1)["verdict"]


def test_a_token_that_would_be_refused() -> None:
    """It is made, as a test may want it, and a warning says why the server of these settings refuses it."""
    for arguments, cause in ((("--ttl", "700000"), "lives too long"), (("--subscribe", "a*b"), "is no pattern")):
        made = call("token", "create", "--sub", "ann", *arguments, ONCECAST_AUTH__SECRET=SECRET)
        assert 0 == made.exit_code
        assert "refused with 401" in shown(made.stdout.strip(), code=1, ONCECAST_AUTH__SECRET=SECRET)["verdict"]
        assert made.stderr.startswith("Warning: a server with these settings does not take it: The token")
        assert cause in made.stderr
    assert "" == call("token", "create", "--sub", "ann", ONCECAST_AUTH__SECRET=SECRET).stderr


def test_explain_for_a_token() -> None:
    """It prints what the rules decide for the identity of the token."""
    made = call("token", "create", "--sub", "ann", ONCECAST_AUTH__SECRET=SECRET).stdout
    Path("oncecast.toml").write_text('[channels."user.{sub}"]\nsubscribe = "token"\n')
    arguments = ("config", "explain", "user.ann", "--token", "-")
    lines = call(*arguments, stdin=made.encode(), ONCECAST_AUTH__SECRET=SECRET).stdout.splitlines()
    assert "asked by   the user ann" in lines
    assert "subscribe  allowed" in lines
    assert "signature is wrong" in complaint(call(*arguments, stdin=made.encode(), ONCECAST_AUTH__SECRET="o" * 32), 2)
    assert "so no token counts" in complaint(call(*arguments, stdin=made.encode()), 2)


def test_explain_with_keys_and_no_rules() -> None:
    """Then every channel wants a token, and what the token grants is what holds."""
    made = call(*["token", "create", "--sub", "ann", "--publish", "a"], ONCECAST_AUTH__SECRET=SECRET).stdout.strip()
    for channel, verdict in (("a", "allowed"), ("b", "refused with 403 forbidden")):
        result = call("config", "explain", channel, "--token", made, ONCECAST_AUTH__SECRET=SECRET).stdout
        assert f"\npublish    {verdict}" in result
    result = call("config", "explain", "a", ONCECAST_AUTH__SECRET=SECRET).stdout
    assert "subscribe  refused with 401 unauthorized" in result
    assert "[auth] names keys" in result


def test_the_keys_of_an_issuer(fake: Fake) -> None:
    """They are fetched where that is asked for, and never else."""
    Path("private.pem").write_bytes(private_pem(private_key("RS256")))
    made = call("token", "create", "--key", "private.pem", "--kid", "1").stdout.strip()
    key = jwt.get_algorithm_by_name("RS256").to_jwk(private_key("RS256").public_key(), as_dict=True)
    fake.polls = [{"keys": [{**key, "kid": "1"}]}, {"keys": []}]
    url = f"{fake.url}/jwks"
    assert "refused with 503" in shown(made, code=1, ONCECAST_AUTH__JWKS_URL=url)["verdict"]
    assert [] == fake.asked
    assert "taken" == shown(made, "--fetch", ONCECAST_AUTH__JWKS_URL=url)["verdict"]
    result = call("token", "inspect", "--fetch", made, ONCECAST_AUTH__JWKS_URL=url)
    assert complaint(result, 1).startswith("the keys of auth.jwks_url can't be fetched")
    result = call("token", "inspect", "--fetch", made, ONCECAST_AUTH__JWKS_URL="http://127.0.0.1:1/")
    assert "the keys of auth.jwks_url can't be fetched: connection refused; check the URL" == complaint(result, 1)
