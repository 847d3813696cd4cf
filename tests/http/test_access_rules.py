"""The access rules of the settings, over HTTP: raw bytes in, the exact refusal out, on every way to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from oncecast.http.service import Rules
from oncecast.policy.identity import Identity
from oncecast.policy.rules import AccessRules
from oncecast.server.settings import ChannelRule, Settings, access_rules

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench

Parse = Callable[..., "Answer"]

RULES = AccessRules(
    {
        "news": ("public", "server"),
        "team.*": ("token", "token"),
        "user.{sub}": ("token", "server"),
    }
)
ANN = Identity("192.0.2.1", "ann", kind="token")
GET = "GET /v1/channels/{} HTTP/1.1\r\nHost: localhost\r\n{}\r\n"
POST = "POST /v1/channels/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"


@pytest.fixture
def ruled(bench: Bench) -> Bench:
    """A server with rules."""
    app = bench.app
    app.adopt(Rules(replace(app.settings, access=RULES), app.hosts, app.origins))
    return bench


@pytest.mark.parametrize(
    "data, status, code, message",
    [
        (GET.format("news", ""), 200, None, None),
        (POST.format("news"), 403, "forbidden", "Only a server's key may publish to news."),
        (GET.format("team.a", ""), 401, "unauthorized", "Only a token may subscribe to team.a: send one."),
        (POST.format("team.a"), 401, "unauthorized", "Only a token may publish to team.a: send one."),
        (GET.format("news,team.a", ""), 401, "unauthorized", "Only a token may subscribe to team.a: send one."),
        (
            GET.format("x", ""),
            403,
            "forbidden",
            "No rule of this server is for the channel x: add one to the settings.",
        ),
        (GET.format("x", "Accept: text/event-stream\r\n"), 403, "forbidden", None),
        (GET.format("team.a?wait=9&after=latest", ""), 401, "unauthorized", None),
        (GET.format("%24tickets", ""), 400, "channel_invalid", None),
        (GET.format("$tickets", ""), 400, "channel_invalid", None),
    ],
)
def test_the_exact_answer(
    ruled: Bench, parse: Parse, data: str, status: int, code: str | None, message: str | None
) -> None:
    """401 where a token could help, else 403, with what is missing; nothing is published or read."""
    answer = parse(ruled.ask(data.encode()))
    assert status == answer.status
    if code is not None:
        assert code == answer.code
    if message is not None:
        assert message == answer.json["error"]["message"]
    assert (0, 0) == (ruled.app.node.log.head, ruled.app.node.hub.subscriptions)


@pytest.mark.parametrize("channel, status", [("user.ann", 200), ("user.bob", 403), ("team.a", 200)])
def test_a_channel_of_one_user(ruled: Bench, parse: Parse, channel: str, status: int) -> None:
    """A channel of one user is read with a token of that user, and with no other."""
    connection, transport = ruled.connect()
    connection.identity = ANN
    connection.receive(GET.format(channel, "").encode())
    assert status == parse(transport.take()).status


def test_a_remembered_answer_is_not_given_to_another(ruled: Bench, parse: Parse) -> None:
    """The same bytes on another connection, by somebody who may not."""
    data = GET.format("user.ann", "").encode()
    mine, sent = ruled.connect()
    mine.identity = ANN
    ruled.turn()
    for _ in range(2):
        mine.receive(data)
        assert 200 == parse(sent.take()).status
    assert ruled.app.memo._polls
    other, others = ruled.connect()
    for identity, status in ((Identity("192.0.2.2"), 401), (Identity("", "bob", kind="token"), 403), (ANN, 200)):
        other.identity = identity
        other.receive(data)
        assert status == parse(others.take()).status


def test_a_token_is_held_to_what_it_names(ruled: Bench, parse: Parse) -> None:
    """A rule says `token`, and the token says which channels; the stricter of both holds."""
    connection, transport = ruled.connect()
    connection.identity = Identity("", "ann", kind="token", subscribe=("team.a",), publish=("team.b", "news"))
    for data, status in (
        (GET.format("team.a", ""), 200),
        (GET.format("team.b", ""), 403),
        (POST.format("team.a"), 403),
        (POST.format("team.b"), 201),
        (POST.format("news"), 403),
        (GET.format("news", ""), 200),
    ):
        connection.receive(data.encode())
        assert status == parse(transport.take()).status, data


def test_when_rules_are_on() -> None:
    """As soon as one table names one of the two; what the others leave out is for servers."""
    off = Settings(channels={"a": ChannelRule(messages=3)})
    access_rules(off).publish(Identity(), "anything")
    rules = access_rules(Settings(channels={"a": ChannelRule(messages=3), "b": ChannelRule(subscribe="public")}))
    assert isinstance(rules, AccessRules)
    verdicts = {
        (action, name): rules.judge(Identity(), action, name).refusal is None
        for action in ("subscribe", "publish")
        for name in ("a", "b", "c")
    }
    assert [("subscribe", "b")] == [asked for asked, allowed in verdicts.items() if allowed]
