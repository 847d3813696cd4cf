"""The access rules: who may do what, by every kind of rule and every kind of identity."""

from __future__ import annotations

import pytest

from oncecast.errors import Refusal
from oncecast.policy.identity import Identity
from oncecast.policy.rules import KNOWN, AccessRules, Action, Allowed

RULES: dict[str, tuple[Allowed, Allowed]] = {
    "news": ("public", "server"),
    "chat.*": ("public", "token"),
    "team.*": ("token", "token"),
    "user.{sub}": ("token", "server"),
    "user.{sub}.*": ("token", "token"),
    "profile.{sub}": ("public", "token"),
    "secret.*": ("server", "server"),
}
ANYBODY = Identity("192.0.2.1")
ANN = Identity("192.0.2.1", "ann", kind="token")
READER = Identity("192.0.2.1", "ann", kind="token", subscribe=("team.a", "chat.*"), publish=())
NAMELESS = Identity("192.0.2.1", None, kind="token")
SERVER = Identity("192.0.2.1", "backend", kind="server")


def verdict(identity: Identity, action: Action, channel: str) -> str:
    """Return the code of the refusal, or `yes`."""
    access = AccessRules(RULES)
    verdicts = []
    for _ in range(2):  # the second time from what is remembered
        try:
            access.subscribe(identity, (channel,)) if action == "subscribe" else access.publish(identity, channel)
            verdicts.append("yes")
        except Refusal as refusal:
            verdicts.append(refusal.code)
    assert verdicts[0] == verdicts[1]
    ruling = access.judge(identity, action, channel)
    assert verdicts[0] == ("yes" if ruling.refusal is None else ruling.refusal.code)
    return verdicts[0]


@pytest.mark.parametrize(
    "channel, action, anybody, ann, reader, server",
    [
        ("news", "subscribe", "yes", "yes", "yes", "yes"),
        ("news", "publish", "forbidden", "forbidden", "forbidden", "yes"),
        ("chat.1", "subscribe", "yes", "yes", "yes", "yes"),
        ("chat.1", "publish", "unauthorized", "yes", "forbidden", "yes"),
        ("team.a", "subscribe", "unauthorized", "yes", "yes", "yes"),
        ("team.b", "subscribe", "unauthorized", "yes", "forbidden", "yes"),
        ("user.ann", "subscribe", "unauthorized", "yes", "forbidden", "yes"),
        ("user.ann", "publish", "forbidden", "forbidden", "forbidden", "yes"),
        ("user.bob", "subscribe", "unauthorized", "forbidden", "forbidden", "yes"),
        ("user.ann.x", "publish", "unauthorized", "yes", "forbidden", "yes"),
        ("user.bob.x", "publish", "unauthorized", "forbidden", "forbidden", "yes"),
        ("profile.bob", "subscribe", "yes", "yes", "yes", "yes"),
        ("profile.bob", "publish", "unauthorized", "forbidden", "forbidden", "yes"),
        ("secret.x", "subscribe", "forbidden", "forbidden", "forbidden", "yes"),
        ("other", "subscribe", "forbidden", "forbidden", "forbidden", "yes"),
        ("other", "publish", "forbidden", "forbidden", "forbidden", "yes"),
        ("$inner", "subscribe", "forbidden", "forbidden", "forbidden", "forbidden"),
        ("$inner", "publish", "forbidden", "forbidden", "forbidden", "forbidden"),
    ],
)
def test_verdicts(channel: str, action: Action, anybody: str, ann: str, reader: str, server: str) -> None:
    """401 where a token could help and none was given, else 403; a server may do all, save with names of our own."""
    found = [verdict(identity, action, channel) for identity in (ANYBODY, ANN, READER, SERVER)]
    assert [anybody, ann, reader, server] == found


def test_a_token_without_a_subject_has_no_channel_of_its_own() -> None:
    """A token without a subject may do what every token may, and has no channel of its own."""
    assert ["yes", "forbidden"] == [verdict(NAMELESS, "subscribe", name) for name in ("team.a", "user.ann")]


@pytest.mark.parametrize("subject", ["", "a.b", "ann.", ".", "{sub}", "*", "!", "Ann"])
def test_a_subject_fits_its_own_channel_only(subject: str) -> None:
    """Whatever stands in a subject, it is compared and not read."""
    other = Identity("", subject, kind="token")
    names = ("user.ann", "user.ann.b", "user.b", "user.a.b.c", "secret.x", "other")
    assert [] == [name for name in names if verdict(other, "subscribe", name) == "yes"]
    access = AccessRules(RULES)
    for name in names[:3]:  # what is remembered of the owner is not given to another
        access.subscribe(Identity("", name.split(".")[1], kind="token"), (name,))
        with pytest.raises(Refusal):
            access.subscribe(other, (name,))
        with pytest.raises(Refusal):
            access.subscribe(Identity("", name.split(".")[1]), (name,))


def test_what_everybody_may_read_is_known_once_it_was_asked_for() -> None:
    """A channel that everybody may read is known as such after the first check, so a remembered poll needs no other."""
    access = AccessRules(RULES)
    assert not access.is_public(("news",))
    access.subscribe(ANYBODY, ("news", "chat.1"))
    access.subscribe(ANN, ("team.a", "user.ann"))
    assert [True, False, False, False] == [
        access.is_public(names) for names in (("news", "chat.1"), ("news", "team.a"), ("user.ann",), ("other",))
    ]


def test_a_rule_for_all_channels_gives_no_name_of_our_own() -> None:
    """The pattern * fits what clients may use."""
    access = AccessRules({"*": ("public", "public")})
    access.subscribe(ANYBODY, ("a",))
    for name in ("$tickets", "", "a b", "é"):
        with pytest.raises(Refusal) as caught:
            access.subscribe(SERVER, (name,))
        assert "forbidden" == caught.value.code


def test_all_channels_are_asked_for() -> None:
    """A subscription of several is refused for one of them."""
    access = AccessRules(RULES)
    with pytest.raises(Refusal) as caught:
        access.subscribe(ANYBODY, ("news", "chat.1", "team.a"))
    assert "Only a token may subscribe to team.a: send one." == caught.value.message


def test_what_is_remembered_is_bounded() -> None:
    """Clients make up names of public channels."""
    access = AccessRules(RULES)
    for number in range(KNOWN + 10):
        access.subscribe(ANYBODY, (f"chat.{number}",))
    assert max(map(len, access._needs.values())) <= KNOWN


@pytest.mark.parametrize(
    "identity, action, channel, expected",
    [
        (ANYBODY, "publish", "news", "Only a server's key may publish to news."),
        (ANYBODY, "publish", "chat.1", "Only a token may publish to chat.1: send one."),
        (ANN, "publish", "user.bob.x", "user.bob.x is the channel of another user: this token may not publish to it."),
        (
            READER,
            "subscribe",
            "team.b",
            "This token names the channels to which it may subscribe: team.b is none of them.",
        ),
        (ANN, "subscribe", "x", "No rule of this server is for the channel x: add one to the settings."),
    ],
)
def test_the_words_of_a_refusal(identity: Identity, action: Action, channel: str, expected: str) -> None:
    """A refusal says which permission is missing."""
    refusal = AccessRules(RULES).judge(identity, action, channel).refusal
    assert refusal is not None
    assert expected == refusal.message
