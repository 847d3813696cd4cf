"""The fuzzing targets without a fuzzer: their seeds, the cases that were found, and small changes of both.

`python -m tests.fuzz` runs them for as long as one wants.
"""

from __future__ import annotations

import random
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator

import pytest

from oncecast.policy import forwarded as forwarded_policy
from oncecast.policy import tokens as token_policy
from oncecast.wire import http1, sse, ws_reader

from .seeds import DICTIONARY, SEEDS
from .targets import CASES, TARGETS

CHANGED = 40  # inputs made of each seed


def inputs(name: str) -> Iterator[bytes]:
    """Yield a target's seeds and cases."""
    yield from SEEDS[name]
    for file in sorted((CASES / name).glob("*")):
        yield file.read_bytes()


def changed(data: bytes, words: tuple[bytes, ...], source: random.Random) -> bytes:
    """Return an input with a few bytes changed, removed, doubled or put in."""
    made = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at, length = source.randint(0, len(made)), source.choice((1, 1, 2, 8))
        match source.randrange(5):
            case 0:
                made[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del made[at : at + length]
            case 2:
                made[at:at] = made[at : at + length] * 2
            case 3:
                made[at:at] = source.choice(words or (b"\r\n", b'"', b"\0", b"9" * 20))
            case _:
                made[at:at] = bytes(source.randrange(256) for _ in range(length))
    return bytes(made)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target(name: str) -> None:
    """Each input, and what small changes make of it, keeps the target's invariants."""
    source = random.Random(name)
    words = DICTIONARY.get(name, ())
    TARGETS[name](b"")
    for data in inputs(name):
        TARGETS[name](data)
        for _ in range(CHANGED):
            made = changed(data, words, source)
            try:
                TARGETS[name](made)
            except BaseException as error:
                error.add_note(f"the input was {made!r}")
                raise


def test_every_target_has_seeds() -> None:
    """A target without seeds would be fuzzed in the dark; a case without a target would never run."""
    assert TARGETS.keys() == SEEDS.keys()
    assert TARGETS.keys() >= {folder.name for folder in CASES.glob("*")}
    assert TARGETS.keys() >= DICTIONARY.keys()


# -- the targets notice a fault


def test_a_cut_that_matters_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that finds no head's end across two pieces reads nothing of what comes byte by byte."""
    monkeypatch.setattr(http1.RequestParser, "_skip_empty_lines", lambda _: None)
    monkeypatch.setattr(http1.RequestParser, "feed", lambda self, data: self._buffer.extend(data[1:] or data))
    with pytest.raises(AssertionError):
        TARGETS["requests"](b"\0\0xGET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_a_limit_that_is_not_kept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that keeps more than a message is seen."""
    monkeypatch.setattr(ws_reader.MessageReader, "_room", lambda *_: 1 << 20)
    with pytest.raises(AssertionError):
        TARGETS["frames"](b"\0\0" + b"\x02\xfe\x08\x00\0\0\0\0" + b"x" * 2048)


def test_an_injected_field_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that lets a line end through writes another stream."""
    monkeypatch.setattr(sse, "_check", lambda text: text)
    monkeypatch.setattr(sse, "encode", lambda data, **_: b"data: %b\n\n" % data)
    with pytest.raises(AssertionError):
        TARGETS["event_streams"](b"\0\0data: a\ndata: b\n\n")


def test_a_token_that_nobody_has_signed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that looks at no signature takes a token that the second reckoning does not confirm."""
    monkeypatch.setattr(token_policy.TokenVerifier, "_check_signature", lambda *_: None)
    claims = urlsafe_b64encode(SEEDS["tokens"][0][2:]).rstrip(b"=")
    with pytest.raises(AssertionError):
        TARGETS["tokens"](b"\0\0eyJhbGciOiJIUzI1NiJ9." + claims + b".AAAA")


def test_a_header_read_from_its_front_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that the client has made up is not the proxy's word."""
    monkeypatch.setattr(forwarded_policy, "_addresses", lambda value: iter([value.partition(",")[0]]))
    with pytest.raises(AssertionError):
        TARGETS["forwarded"](b"\0\x001.2.3.4")


def test_a_name_that_is_read_out_of_quotes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for `for` finds one in the value of another name, which may be the client's word."""
    monkeypatch.setattr(forwarded_policy, "_PAIR", re.compile(r"(?:^|;)[ \t]*(for)=([^;\"]*)"))
    with pytest.raises(AssertionError):
        TARGETS["forwarded"](b"\1\0no target has seen this;for=x")  # else what it says would be remembered
