"""Answers that are given again."""

from __future__ import annotations

from oncecast.http.memo import ANSWER_BYTES, ANSWERS, KnownPoll, Memo
from oncecast.policy.limits import Limits
from oncecast.wire.http1 import MEMO_BYTES, Request, RequestParser


def poll() -> Request:
    """Return a request that equals every other of these."""
    return Request("GET", "/", "/", "")


def known(request: Request, version: int = 1, answer: bytes = b"answer") -> KnownPoll:
    """Return a poll with its answer."""
    return KnownPoll(request, ("a",), answer, version, public=True, identity=None)


def parsed(data: bytes) -> Request:
    """Return the request of these bytes, as a connection of its own reads them."""
    parser = RequestParser(Limits())
    parser.feed(data)
    request = parser.next()
    assert request is not None
    return request


def answer_of(memo: Memo, request: Request, version: int, second: int) -> bytes | None:
    """Return the answer that is remembered."""
    found = memo.get(request, version, second)
    return None if found is None else found.answer


def test_the_same_request_gets_the_same_answer() -> None:
    """An answer is for the request object that it was made for; an equal one may be of another connection's head."""
    memo, request = Memo(), poll()
    assert memo.get(request, 1, 1) is None
    memo.put(known(request), 1)
    assert b"answer" == answer_of(memo, request, 1, 1)
    assert memo.get(poll(), 1, 1) is None


def test_another_version_or_second_needs_another_answer() -> None:
    """A remembered answer is not used after a new message, or in the next second with its other Date."""
    memo, request = Memo(), poll()
    for version, second in ((2, 1), (2, 2), (1, 2)):
        assert memo.get(request, version, second) is None
        memo.put(known(request, version), second)
        assert b"answer" == answer_of(memo, request, version, second)


def test_long_answers_are_not_kept() -> None:
    """The memory is bounded by the length of an answer,"""
    memo, request = Memo(), poll()
    memo.get(request, 1, 1)
    memo.put(known(request, answer=b"x" * (ANSWER_BYTES + 1)), 1)
    assert memo.get(request, 1, 1) is None
    memo.put(known(request, answer=b"x" * ANSWER_BYTES), 1)
    assert memo.get(request, 1, 1) is not None


def test_a_request_that_does_not_come_again_is_not_kept() -> None:
    """by what the parser keeps, which is no body and no long head,"""
    memo = Memo()
    body = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * MEMO_BYTES)
    short = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for data, kept in ((body, False), (long, False), (short, True)):
        first, second = parsed(data), parsed(data)
        memo.get(first, 1, 1)
        memo.put(known(first), 1)
        assert kept is (memo.get(second, 1, 1) is not None)


def test_answers_are_bounded() -> None:
    """and by their number."""
    memo = Memo()
    requests = [poll() for _ in range(ANSWERS + 1)]
    memo.get(requests[0], 1, 1)
    for request in requests:
        memo.put(known(request), 1)
    assert memo.get(requests[0], 1, 1) is None
    assert b"answer" == answer_of(memo, requests[-1], 1, 1)


def test_an_answer_of_a_second_that_is_over_is_not_kept() -> None:
    """An answer that the history gave after its second had ended is not remembered, as its Date would be wrong."""
    memo, request = Memo(), poll()
    memo.get(request, 1, 2)
    memo.put(known(request), 1)
    assert memo.get(request, 1, 2) is None
