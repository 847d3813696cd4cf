"""The table of errors: every row keeps the rules that answers, close codes and the documentation are made from."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from http import HTTPStatus

import pytest

from oncecast.errors import _ROWS, ERRORS, ConfigurationError, ErrorCode, OncecastError, Refusal, UsageError

# RFC 6455 §7.4.1 and the IANA registry of WebSocket close codes: those of them that a server may send for a refusal.
STANDARD_CLOSE_CODES = {1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
OWN_CLOSE_CODES = range(4400, 4600)  # RFC 6455 §7.4.2 leaves 4000-4999 to agreements between applications
PASSING_STATUSES = {408, 429}
PROMISED_STATUSES = {400, 401, 403, 404, 405, 408, 413, 414, 415, 426, 429, 431, 503}

every_row = pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.code)


def test_each_code_stands_in_the_table_once() -> None:
    """No row hides another of the same name."""
    assert len(_ROWS) == len(ERRORS)
    assert {row.code: row for row in _ROWS} == ERRORS


def test_every_status_that_the_wire_promises_has_a_row() -> None:
    """Each HTTP status of the specification can be answered with a coded error."""
    assert set() == PROMISED_STATUSES - {row.status for row in _ROWS}


@every_row
def test_a_code_is_a_plain_word(row: ErrorCode) -> None:
    """A code can stand in a URL, a metric's label and a switch of any language."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.code)


@every_row
def test_a_status_is_an_error_of_http(row: ErrorCode) -> None:
    """Each status is registered, and is a client's or a server's error."""
    assert 400 <= HTTPStatus(row.status) < 600


@every_row
def test_a_close_code_may_be_sent(row: ErrorCode) -> None:
    """Each close code is a standard one that an endpoint may send, or one of ours."""
    assert row.close in STANDARD_CLOSE_CODES or row.close in OWN_CLOSE_CODES


@every_row
def test_one_of_our_close_codes_follows_its_status(row: ErrorCode) -> None:
    """The close code can be derived from the HTTP status."""
    follows = row.close == 4000 + row.status
    # A slow reader's place is still good and a late request's is not: one status, but two things to do about it.
    assert follows or row.close in STANDARD_CLOSE_CODES or ("slow", 4409) == (row.code, row.close)


def test_a_close_code_alone_says_whether_to_retry() -> None:
    """A browser shows a script no more than the close code, so rows that share one agree on status and retry."""
    meanings = defaultdict(set)
    for row in _ROWS:
        meanings[row.close].add((row.status, row.retry))
    assert {} == {close: found for close, found in meanings.items() if len(found) > 1}


@every_row
def test_what_passes_by_itself_is_retried(row: ErrorCode) -> None:
    """The statuses that time or load brings on are retried, and a request that is wrong in itself is not."""
    if row.status in PASSING_STATUSES or row.status >= 500:
        assert row.retry
    elif row.code != "gap":  # its sender drops the cursor and comes back at once
        assert not row.retry


@every_row
def test_advice_is_a_sentence(row: ErrorCode) -> None:
    """The advice can be shown as it is: one line that begins and ends like a sentence."""
    assert re.fullmatch(r"[A-Z][^\n]*\.", row.advice)


def test_a_row_cannot_be_changed() -> None:
    """The table is shared by every answer, so it is frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        ERRORS["timeout"].retry = False  # type: ignore[misc]


def test_a_refusal_carries_its_row_and_its_message() -> None:
    """A refusal knows its row, its message, and what becomes of them in headers."""
    refusal = Refusal("too_many_requests", "Slow down.", retry_after=1.5, allow=("GET", "POST"))
    assert ERRORS["too_many_requests"] is refusal.error
    assert "too_many_requests" == refusal.code
    assert "Slow down." == refusal.message == str(refusal)
    assert (1.5, ("GET", "POST")) == (refusal.retry_after, refusal.allow)


def test_a_refusal_adds_no_headers_unasked() -> None:
    """Without a time or methods, there is no Retry-After and no Allow."""
    refusal = Refusal("not_found", "There is nothing here.")
    assert (None, ()) == (refusal.retry_after, refusal.allow)


def test_a_refusal_needs_a_row() -> None:
    """A code that is not in the table is a mistake of ours, and is seen where it is made."""
    with pytest.raises(KeyError):
        Refusal("no_such_code", "It cannot be answered.")


def test_a_peers_fault_and_our_own_are_different_errors() -> None:
    """Everything can be caught as one, but answering a peer never catches our own misuse."""
    assert all(issubclass(kind, OncecastError) for kind in (Refusal, UsageError, ConfigurationError))
    assert not any(issubclass(kind, Refusal) for kind in (UsageError, ConfigurationError))
