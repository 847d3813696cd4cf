"""The URL of a broker on another machine: taken apart, its secrets in no text, each mistake in one line."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path

import pytest

from oncecast.brokers.address import Address, connect_advice, parse_address, secret, whole
from oncecast.errors import ConfigurationError

SCHEMES = {"x": False, "xs": True}


def parse(url: str, **environ: str) -> Address:
    """Take a URL apart as a broker with one option does."""
    return parse_address(url, SCHEMES, 1234, ("prefix",), environ)


def test_a_url_is_taken_apart() -> None:
    """Its hosts with their ports, its user and password decoded, its path and options."""
    address = parse("xs://us%40er:p%2Fw@one,two:5,[::1]:6/path%20of?prefix=a%26b")
    assert (("one", 1234), ("two", 5), ("::1", 6)) == address.hosts
    assert ("us@er", "p/w", "path of", {"prefix": "a&b"}, True) == (
        address.user,
        address.password,
        address.path,
        dict(address.options),
        address.tls,
    )
    assert (None, None) == (parse("x://one").user, parse("x://one").password)
    assert "" == parse("x://:@one").password
    assert "token" == parse("x://token@one").user
    assert (("::1", 1234),) == parse("x://[::1]").hosts


def test_no_text_of_it_has_a_secret() -> None:
    """Neither `str` nor `repr` shows the password."""
    address = parse("x://user:secret@one,[::1]/path?prefix=hidden")
    assert "x://one:1234,[::1]:1234/path" == str(address)
    assert "Address(x://one:1234,[::1]:1234/path)" == repr(address)
    assert "x://one:1234" == str(parse("x://one"))


def test_a_password_comes_from_one_place(tmp_path: Path) -> None:
    """It comes from a file, without its line end, or from a variable."""
    file = tmp_path / "password"
    file.write_text("from file\r\n")
    assert "from file" == parse(f"x://user@one?password_file={file}").password
    assert "from variable" == parse("x://user@one?password_env=PASS", PASS="from variable").password


@pytest.mark.parametrize(
    "url, said",
    [
        ("y://one", "begin the URL with one of x://, xs://"),
        ("x://", "begin the URL with one of"),
        ("x://[::1", "this is not a URL"),
        ("x://one?other=1", "there is no option other: use password_env"),
        ("x://one?prefix=1&prefix=2", "prefix stands twice"),
        ("x://user:a#b@one", "is written %23|this is not a URL|no port"),
        ("x://one#x", "is written %23"),
        ("x://a,,b", "there is no host"),
        ("x://:5", "there is no host"),
        ("x://one:0", "0 is no port"),
        ("x://one:65536", "65536 is no port"),
        ("x://one:٣", "is no port"),
        ("x://[::1]x", "is no host|this is not a URL"),
        ("x://user:pa@one?password_env=P", "given in several ways"),
        ("x://user@one?password_env=P", "there is no variable P"),
        ("x://user@one?password_file=/nowhere", "password_file can't be read"),
    ],
)
def test_a_mistake_is_one_line(url: str, said: str) -> None:
    """It says what to change, and has no password."""
    with pytest.raises(ConfigurationError, match=said) as raised:
        parse(url)
    text = str(raised.value)
    assert text.startswith("broker: ")
    assert "\n" not in text
    assert "user" not in text.replace("user and password", "")


@pytest.mark.parametrize("text", ["", "x", "-1", "9", "٣", "1" * 30])
def test_a_whole_number_has_bounds(text: str) -> None:
    """A number outside of its bounds is an error that names them."""
    address = parse(f"x://one?prefix={text}")
    with pytest.raises(ConfigurationError, match="prefix is a whole number from 1 to 8"):
        whole(address, "prefix", 3, 1, 8)


def test_a_whole_number_has_a_default() -> None:
    """The default counts if the URL has no such option."""
    assert [3, 8] == [whole(parse(url), "prefix", 3, 1, 8) for url in ("x://one", "x://one?prefix=8")]


def test_tls_has_a_context() -> None:
    """The context verifies certificates, unless an option turns that off."""
    assert parse("x://one").context() is None
    context = parse("xs://one").context()
    assert context is not None
    assert (True, ssl.CERT_REQUIRED) == (context.check_hostname, context.verify_mode)
    careless = parse("xs://one?tls_verify=no").context()
    assert careless is not None
    assert (False, ssl.CERT_NONE) == (careless.check_hostname, careless.verify_mode)


@pytest.mark.parametrize("option", ["tls_ca=/nowhere", "tls_cert=/nowhere", "tls_cert=/nowhere&tls_key=/nowhere"])
def test_a_tls_file_that_is_missing_is_one_line(option: str) -> None:
    """The error names the broker."""
    with pytest.raises(ConfigurationError, match="broker: a TLS file of xs://one:1234 can't be used"):
        parse(f"xs://one?{option}").context()


def test_another_secret_than_the_password(tmp_path: Path) -> None:
    """An option that is one may come from a file or a variable too, and from one place only."""
    (tmp_path / "word").write_text("from file\n")
    known = ("word", "word_file", "word_env")

    def read(query: str) -> str | None:
        return secret(parse_address(f"x://one?{query}", SCHEMES, 1234, known), "word", {"WORD": "from variable"})

    queries = ("", "word=given", f"word_file={tmp_path / 'word'}", "word_env=WORD")
    assert [read(query) for query in queries] == [None, "given", "from file", "from variable"]
    for query, said in (("word=a&word_env=WORD", "in several ways"), ("word_env=NONE", "named by word_env")):
        with pytest.raises(ConfigurationError, match=said):
            read(query)


@pytest.mark.parametrize("option", ["tls_ca=/ca.pem", "tls_cert=/c&tls_key=/k", "tls_verify=no"])
def test_an_option_of_tls_without_tls_is_refused(option: str) -> None:
    """Who names a certificate means TLS, and would talk in the clear."""
    said = f"broker: x://one: {option.partition('=')[0]} is for TLS: begin the URL with xs://, or leave it out"
    with pytest.raises(ConfigurationError, match=said):
        parse(f"x://user:secret@one?{option}")


@pytest.mark.parametrize(
    ("error", "url", "said"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            "x://one",
            r"its name .* resolved \(Name or .*the URL",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "x://one", "nothing listens there: start the server"),
        (ConnectionResetError(), "xs://one", "it closed the connection: check that it speaks TLS at this port; it may"),
        (BrokenPipeError(), "xs://one", "it closed the connection: check that it speaks TLS at this port; it may"),
        (asyncio.IncompleteReadError(b"", 4), "xs://one", "text: check that it speaks TLS at this port; it may ask"),
        (ConnectionResetError(), "x://one", "text"),
        (ssl.SSLError(), "x://one", "TLS: text: it may be a port of TLS"),
    ],
)
def test_why_no_connection_could_be_opened(error: Exception, url: str, said: str) -> None:
    """The line says what to do, where that is known."""
    text = "" if isinstance(error, ConnectionError) and url.startswith("xs") else "text"
    assert re.match(said, connect_advice(error, text, parse(url)))
