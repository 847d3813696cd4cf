"""Frames of RFC 6455: what is written, and the rules that reading judges one frame by."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import UsageError
from oncecast.wire import ws_frames
from oncecast.wire.ws_connection import DataReceived, Role, WebSocketConnection
from oncecast.wire.ws_frames import (
    CONTROL_BYTES,
    DECODE_BYTES,
    FIRST_BETWEEN,
    FIRST_INSIDE,
    STRIDE_BYTES,
    FrameFault,
    Opcode,
    apply_mask,
    close_payload,
    encode_frame,
    first_fault,
    is_close_code,
    read_close,
    read_length,
    utf8_tail,
    whole_message,
)

KEY = bytes.fromhex("37fa213d")  # of the examples in RFC 6455 §5.7

# -- writing


@pytest.mark.parametrize(
    "frame, encoded",
    [
        (encode_frame(Opcode.TEXT, b"Hello"), "810548656c6c6f"),
        (encode_frame(Opcode.TEXT, b"Hello", mask=KEY), "818537fa213d7f9f4d5158"),
        (encode_frame(Opcode.TEXT, b"Hel", fin=False), "010348656c"),
        (encode_frame(Opcode.CONTINUATION, b"lo"), "80026c6f"),
        (encode_frame(Opcode.PING, b"Hello"), "890548656c6c6f"),
        (encode_frame(Opcode.PONG, b"Hello", mask=KEY), "8a8537fa213d7f9f4d5158"),
    ],
)
def test_examples_of_the_rfc(frame: bytes, encoded: str) -> None:
    """The examples of RFC 6455 §5.7 come out byte for byte."""
    assert bytes.fromhex(encoded) == frame


@pytest.mark.parametrize(
    "length, field",
    [
        (0, "00"),
        (125, "7d"),
        (126, "7e007e"),
        (65535, "7effff"),
        (65536, "7f0000000000010000"),
        (1 << 20, "7f0000000000100000"),
    ],
)
def test_length_is_as_short_as_it_can_be(length: int, field: str) -> None:
    """Each length takes the shortest of the three forms, masked or not."""
    payload = bytes(length)
    head = bytes.fromhex("82" + field)
    assert head + payload == encode_frame(Opcode.BINARY, payload)
    masked = bytearray(head)
    masked[1] |= 0x80
    assert bytes(masked) + KEY + apply_mask(payload, KEY) == encode_frame(Opcode.BINARY, payload, mask=KEY)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_rsv1_marks_the_first_frame_of_a_message(opcode: Opcode, fin: bool) -> None:
    """RSV1 can be written on text and binary frames."""
    assert bytes((fin << 7 | 0x40 | opcode, 1)) + b"x" == encode_frame(opcode, b"x", fin=fin, rsv1=True)


@pytest.mark.parametrize(
    "opcode, fin, rsv1",
    [
        *((opcode, True, False) for opcode in (-1, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 0x41, 0x100)),
        *((opcode, False, False) for opcode in (3, 8, 9, 10, 0x89)),
        *((opcode, True, True) for opcode in (0, 8, 9, 10)),
    ],
)
def test_frames_that_may_not_be_are_our_misuse(opcode: int, fin: bool, rsv1: bool) -> None:
    """Reserved opcodes, fragmented control frames and a misplaced RSV1 are never written."""
    with pytest.raises(UsageError, match="No frame begins"):
        encode_frame(opcode, b"", fin=fin, rsv1=rsv1)


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("mask", [None, KEY])
def test_control_frames_are_short(opcode: Opcode, mask: bytes | None) -> None:
    """A control frame of 125 bytes is written, one of 126 is our misuse."""
    assert CONTROL_BYTES == len(encode_frame(opcode, bytes(125), mask=mask)) - (6 if mask else 2)
    with pytest.raises(UsageError, match="at most 125 bytes, not 126"):
        encode_frame(opcode, bytes(126), mask=mask)


@pytest.mark.parametrize("mask", [b"", b"abc", b"abcde"])
def test_masking_key_has_four_bytes(mask: bytes) -> None:
    """A masking key of another length is our misuse."""
    with pytest.raises(UsageError, match="4 bytes"):
        encode_frame(Opcode.TEXT, b"x", mask=mask)


# -- masking


def slow_mask(data: bytes, key: bytes) -> bytes:
    """Mask as RFC 6455 §5.3 says it."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


@pytest.mark.parametrize("length", [*range(20), 125, *range(STRIDE_BYTES - 5, STRIDE_BYTES + 6), 4096, 65537])
@pytest.mark.parametrize("key", [KEY, b"\0\0\0\0", b"\xff\0\x80\x01"])
def test_mask_is_the_rfcs(length: int, key: bytes) -> None:
    """Both ways to mask give what the RFC's formula gives, and masking twice gives the data back."""
    data = bytes(index * 7 & 0xFF for index in range(length))
    masked = apply_mask(data, key)
    assert slow_mask(data, key) == masked
    assert data == apply_mask(masked, key)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [9, STRIDE_BYTES])
def test_mask_takes_any_buffer(kind: type, length: int) -> None:
    """A bytearray and a memoryview are masked like bytes, and stay as they were."""
    data = bytes(index & 0xFF for index in range(length))
    given_data = kind(data)
    masked = apply_mask(given_data, KEY)
    assert (bytes, slow_mask(data, KEY)) == (type(masked), masked)
    assert data == bytes(given_data)


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4))
def test_mask_of_anything(data: bytes, key: bytes) -> None:
    """Any data and key are masked as the RFC says."""
    assert slow_mask(data, key) == apply_mask(data, key)


# -- close frames

ON_THE_WIRE = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}  # RFC 6455 §7.4, IANA's registry


def test_every_close_code_is_classified() -> None:
    """Of 0 to 65535, just the registered codes and 3000 to 4999 may be written and read."""
    assert sorted(ON_THE_WIRE) == [code for code in range(1 << 16) if is_close_code(code)]
    for code in range(5001):
        payload = code.to_bytes(2, "big")
        if code in ON_THE_WIRE:
            assert payload == close_payload(code, "")
            assert (code, "") == read_close(payload, whole=True)
        else:
            with pytest.raises(UsageError, match="not a close code"):
                close_payload(code, "")
            with pytest.raises(FrameFault, match="bad close code") as caught:
                read_close(payload, whole=True)
            assert 1002 == caught.value.code


def test_first_byte_of_a_close_code_can_show_the_fault() -> None:
    """Where no code begins with a byte, that byte alone is the fault; else the second decides."""
    for high in range(256):
        if any(code >> 8 == high for code in ON_THE_WIRE):
            assert (None, "") == read_close(bytes((high,)), whole=False)
        else:
            with pytest.raises(FrameFault, match="bad close code"):
                read_close(bytes((high,)), whole=False)


@pytest.mark.parametrize(
    "reason, encoded",
    [
        ("", b""),
        ("going", b"going"),
        ("x" * 123, b"x" * 123),
        ("x" * 124, b"x" * 123),
        ("x" * 122 + "é", b"x" * 122),
        ("x" * 121 + "é", b"x" * 121 + "é".encode()),
        ("x" * 120 + "😀", b"x" * 120),
        ("€" * 42, "€".encode() * 41),
        ("\ud800", b"?"),
    ],
)
def test_close_reason_is_cut_between_characters(reason: str, encoded: bytes) -> None:
    """A reason is cut to 123 bytes of valid UTF-8."""
    assert b"\x03\xe8" + encoded == close_payload(1000, reason)


def test_close_payload_is_read() -> None:
    """A payload is nothing, a code, or a code and a reason; of a part nothing is said yet."""
    payload = close_payload(4400, "né")
    assert (None, "") == read_close(b"", whole=True)
    assert (4400, "né") == read_close(payload, whole=True)
    for end in range(len(payload)):
        assert (None, "") == read_close(payload[:end], whole=False)


@pytest.mark.parametrize(
    "payload, whole, code",
    [
        (b"\x03\xe8\xff", True, 1007),
        (b"\x03\xe8\xff", False, 1007),
        (b"\x03\xe8ab\xe2\x82", True, 1007),
        (b"\x03\xed\xff", True, 1002),  # the code comes first
    ],
)
def test_close_reason_must_be_utf8(payload: bytes, whole: bool, code: int) -> None:
    """A bad reason is 1007, also where it ends too early; a bad code before it is 1002."""
    with pytest.raises(FrameFault) as caught:
        read_close(payload, whole=whole)
    assert code == caught.value.code


# -- UTF-8


def continuations(lead: int, *before: int) -> range:
    """Return the bytes that may follow, as the ABNF of RFC 3629 §4 has it; an empty range ends the character."""
    if before:
        more = 1 + (lead >= 0xE0) + (lead >= 0xF0) - len(before)
        return range(0x80, 0xC0) if more > 0 else range(0)
    if lead < 0x80:
        return range(0)
    low = {0xE0: 0xA0, 0xF0: 0x90}.get(lead, 0x80)
    high = {0xED: 0x9F, 0xF4: 0x8F}.get(lead, 0xBF)
    return range(low, high + 1)


def is_valid(data: bytes) -> bool:
    """Return whether UTF-8 can begin with `data`."""
    try:
        utf8_tail(data)
    except FrameFault as fault:
        return fault.code != 1007
    return True


def test_utf8_is_judged_at_the_first_byte_that_shows_it() -> None:
    """Every pair of bytes, and every byte after a legal beginning of a character, gets RFC 3629's verdict."""
    leads = [*range(0x80), *range(0xC2, 0xF5)]
    assert leads == [lead for lead in range(256) if is_valid(bytes((lead,)))]
    for lead in range(0xC2, 0xF5):
        expected = continuations(lead)
        for second in range(256):
            assert (second in expected) == is_valid(bytes((lead, second))), f"{lead:02x} {second:02x}"
        for second in (expected[0], expected[-1]) if lead >= 0xE0 else ():
            for third in range(256):
                assert (third in continuations(lead, second)) == is_valid(bytes((lead, second, third)))
            for fourth in range(256) if lead >= 0xF0 else ():
                assert (0x80 <= fourth < 0xC0) == is_valid(bytes((lead, second, 0xBF, fourth)))


@pytest.mark.parametrize(
    "data, tail",
    [
        (b"", b""),
        (b"abc", b""),
        ("é€😀".encode(), b""),
        (b"a\xc3", b"\xc3"),
        (b"a\xe2\x82", b"\xe2\x82"),
        (b"a\xf0\x9f\x98", b"\xf0\x9f\x98"),
        (b"\xed\x9f", b"\xed\x9f"),
        (b"\xee\xa0", b"\xee\xa0"),
    ],
)
def test_utf8_tail(data: bytes, tail: bytes) -> None:
    """The incomplete UTF-8 sequence at the end of the bytes is returned."""
    assert tail == utf8_tail(data)


@pytest.mark.parametrize("shift", range(4))
def test_utf8_is_checked_in_slices(shift: int) -> None:
    """Characters that lie across two slices are whole, and a fault past the first slice is found."""
    data = b"a" * shift + "😀".encode() * (DECODE_BYTES // 2)
    assert b"" == utf8_tail(data)
    assert b"\xf0\x9f\x98" == utf8_tail(data[:-1])
    assert not is_valid(data + b"\xff")
    assert not is_valid(data[:-1] + b"a")


# -- the head


def test_first_bytes() -> None:
    """Of 256 first bytes, 7 are legal between messages and 5 inside one."""
    assert {0x01, 0x02, 0x81, 0x82, 0x88, 0x89, 0x8A} == FIRST_BETWEEN
    assert {0x00, 0x80, 0x88, 0x89, 0x8A} == FIRST_INSIDE


@pytest.mark.parametrize(
    "first, inside, reason",
    [
        *((0x81 | rsv, inside, "a reserved bit is set") for rsv in (0x10, 0x20, 0x40, 0x70) for inside in (0, 1)),
        *((0x80 | opcode, 0, "reserved opcode") for opcode in (3, 7, 11, 15)),
        (0x03, 1, "reserved opcode"),
        (0x08, 0, "fragmented control frame"),
        (0x0A, 1, "fragmented control frame"),
        (0x81, 1, "new message inside a fragmented one"),
        (0x02, 1, "new message inside a fragmented one"),
        (0x80, 0, "continuation without a message"),
        (0x00, 0, "continuation without a message"),
    ],
)
def test_first_fault(first: int, inside: int, reason: str) -> None:
    """The fault of a first byte that is not legal says what is wrong with it."""
    fault = first_fault(first, inside=bool(inside))
    assert (1002, reason) == (fault.code, fault.reason)


ROOM = 1 << 20


@pytest.mark.parametrize(
    "width, field, room, length",
    [
        (2, "", ROOM, None),
        (2, "00", ROOM, None),
        (2, "007e", ROOM, 126),
        (2, "007e", 126, 126),
        (2, "ffff", ROOM, 65535),
        (8, "", ROOM, None),
        (8, "0000000000", ROOM, None),
        (8, "000000000001", ROOM * 2**16, None),
        (8, "0000000000010000", ROOM, 65536),
        (8, "0000000000100000", ROOM, ROOM),
        (8, "7fffffffffffffff", 2**63 - 1, 2**63 - 1),
    ],
)
def test_read_length(width: int, field: str, room: int, length: int | None) -> None:
    """A length field is read when it is whole."""
    assert length == read_length(bytes.fromhex(field), width, room)


@pytest.mark.parametrize(
    "width, field, room, code, reason",
    [
        (2, "", 125, 1009, "message too big"),
        (2, "007d", ROOM, 1002, "length not minimal"),
        (2, "0000", ROOM, 1002, "length not minimal"),
        (2, "01", 255, 1009, "message too big"),
        (2, "0100", 255, 1009, "message too big"),
        (8, "", 65535, 1009, "message too big"),
        (8, "80", ROOM, 1002, "the top bit of a 64-bit length is set"),
        (8, "ff" * 8, 2**64, 1002, "the top bit of a 64-bit length is set"),
        (8, "000000000000", ROOM, 1002, "length not minimal"),
        (8, "000000000000ffff", ROOM, 1002, "length not minimal"),
        (8, "01", ROOM, 1009, "message too big"),
        (8, "0000000000100001", ROOM, 1009, "message too big"),
    ],
)
def test_bad_lengths(width: int, field: str, room: int, code: int, reason: str) -> None:
    """A bad length shows at the first byte after which no good one is possible, and not before."""
    with pytest.raises(FrameFault) as caught:
        read_length(bytes.fromhex(field), width, room)
    assert (code, reason) == (caught.value.code, caught.value.reason)


@given(st.sampled_from([2, 8]), st.binary(min_size=8, max_size=8), st.integers(0, 7), st.integers(0, 1 << 63))
def test_a_part_of_a_length_gets_the_verdict_of_the_whole(width: int, data: bytes, zeros: int, room: int) -> None:
    """Whichever prefix shows a fault first, the whole field shows the same one."""
    field = (bytes(zeros) + data)[:width]

    def verdict(part: bytes) -> str | int | None:
        try:
            return read_length(part, width, room)
        except FrameFault as fault:
            return fault.reason

    verdicts = [verdict(field[:end]) for end in range(width + 1)]
    decided = list(itertools.dropwhile(lambda seen: seen is None, verdicts))
    assert {verdicts[-1]} == set(decided)


ROOM = 70_000

WHOLE = [
    (encode_frame(Opcode.TEXT, b"", mask=KEY), (b"", True)),
    (encode_frame(Opcode.TEXT, "hé".encode(), mask=KEY), ("hé".encode(), True)),
    (encode_frame(Opcode.BINARY, b"\xff" * 125, mask=KEY), (b"\xff" * 125, False)),
    (encode_frame(Opcode.TEXT, b"a" * 126, mask=KEY), (b"a" * 126, True)),
    (encode_frame(Opcode.BINARY, b"a" * 65535, mask=KEY), (b"a" * 65535, False)),
]
NOT_WHOLE = {
    "nothing": b"",
    "a part of a head": b"\x81",
    "a part of a payload": encode_frame(Opcode.TEXT, b"Hello", mask=KEY)[:-1],
    "two frames": encode_frame(Opcode.TEXT, b"Hello", mask=KEY) * 2,
    "a fragment": encode_frame(Opcode.TEXT, b"Hello", fin=False, mask=KEY),
    "the end of a message": encode_frame(Opcode.CONTINUATION, b"Hello", mask=KEY),
    "a ping": encode_frame(Opcode.PING, b"Hello", mask=KEY),
    "a Close": encode_frame(Opcode.CLOSE, close_payload(1000, ""), mask=KEY),
    "a compressed message": encode_frame(Opcode.TEXT, b"Hello", rsv1=True, mask=KEY),
    "no mask": encode_frame(Opcode.TEXT, b"Hello"),
    "bad UTF-8": encode_frame(Opcode.TEXT, b"\xff", mask=KEY),
    "a part of a character": encode_frame(Opcode.TEXT, b"\xc3", mask=KEY),
    "a length that is not minimal": bytes.fromhex("81fe007d") + KEY + b"a" * 125,
    "a length of eight bytes": encode_frame(Opcode.TEXT, b"a" * 65536, mask=KEY),
    "a length that disagrees": bytes.fromhex("81fe00c8") + KEY + b"a" * 199,
}


@pytest.mark.parametrize("data, message", WHOLE)
def test_a_whole_message_is_read_without_a_codec(data: bytes, message: tuple[bytes, bool]) -> None:
    """A whole message up to the limit is read as its unmasked payload and whether it is text."""
    assert message == whole_message(data, len(message[0]))
    assert not message[0] or whole_message(data, len(message[0]) - 1) is None


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_all_else_is_left_to_the_codec(name: str) -> None:
    """Every other read, with its faults."""
    assert whole_message(NOT_WHOLE[name], ROOM) is None


@given(
    st.binary(min_size=1, max_size=12)
    | st.builds(
        lambda first, second, rest: bytes((first, second)) + rest,
        st.sampled_from([0x81, 0x82, 0x01, 0xC1]),
        st.integers(0x80, 0x87) | st.just(0xFE),
        st.binary(max_size=140),
    ),
    st.integers(0, 130),
)
def test_what_is_read_without_a_codec_is_what_the_codec_reads(data: bytes, most: int) -> None:
    """The same message, and never one that the codec would refuse or would wait for more of."""
    message = whole_message(data, most)
    if message is not None:
        codec = WebSocketConnection(Role.SERVER, max_message_bytes=most)
        assert [DataReceived(*message)] == codec.receive(data)
        assert codec.idle


def test_everything_public_is_there() -> None:
    """Each name in `__all__` exists."""
    assert [] == [name for name in ws_frames.__all__ if not hasattr(ws_frames, name)]
