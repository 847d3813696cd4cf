"""What `oncecast config explain` prints: which rule decides about a channel, and what it decides.

Invariant: the verdict is what `AccessRules.judge` says, which is what the server asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..policy.access import ALLOW_ALL, Access
from ..policy.identity import Identity
from ..policy.rules import AccessRule, AccessRules, Action, Ruling
from ..server.config import Loaded
from ..server.config.setting import dotted
from ..server.settings import access_rules

__all__ = ["explain"]

WIDTH = 11  # of the first column


def explain(loaded: Loaded, channel: str, identity: Identity, asked_by: str) -> str:
    """Return the lines for a channel. `asked_by` says in words whom `identity` stands for."""
    access: Access = access_rules(loaded.settings)
    lines = [_line("channel", channel)]
    if not isinstance(access, AccessRules):
        assert access is ALLOW_ALL
        lines.append(_line("rule", "none is needed: no table of a channel names subscribe or publish"))
        lines += [_line(action, "allowed: without access rules everybody may") for action in ("subscribe", "publish")]
        return "\n".join(lines)
    actions: tuple[Action, Action] = ("subscribe", "publish")
    rulings = {action: access.judge(identity, action, channel) for action in actions}
    lines.append(_line("rule", _named(loaded, rulings["subscribe"].rule)))
    lines.append(_line("asked by", asked_by))
    for action, ruling in rulings.items():
        lines += ["", *_explained(loaded, channel, identity, action, ruling)]
    return "\n".join(lines)


def _named(loaded: Loaded, rule: AccessRule | None) -> str:
    where = "the settings" if loaded.file is None else str(loaded.file)
    if rule is not None and rule.pattern.text not in loaded.settings.channels:
        return "none is needed: no table of a channel names subscribe or publish, and [auth] names keys"
    if rule is None:
        return f"none: no table [channels.…] of {where} fits, so only a server's key may do anything"
    return f"[{dotted(('channels', rule.pattern.text))}] in {where}"


def _explained(loaded: Loaded, channel: str, identity: Identity, action: Action, ruling: Ruling) -> Iterator[str]:
    if ruling.refusal is None:
        yield _line(action, "allowed, as a server may do everything" if identity.kind == "server" else "allowed")
    else:
        error = ruling.refusal.error
        yield _line(action, f"refused with {error.status} {error.code}: {ruling.refusal.message}")
    if ruling.rule is not None:
        table = loaded.settings.channels.get(ruling.rule.pattern.text)
        if table is None:
            yield _line("", f"without a table it is for {_meaning(ruling.rule, action, channel)}")
            return
        given = getattr(table, action) is not None
        said = "the rule says" if given else "the rule does not name it, which means"
        yield _line("", f'{said} "{ruling.rule.allowed(action)}": {_meaning(ruling.rule, action, channel)}')


def _meaning(rule: AccessRule, action: Action, channel: str) -> str:
    """Return the words for an access rule."""
    allowed = rule.allowed(action)
    if allowed == "public":
        return "everybody"
    if allowed == "server":
        return "a server's key"
    place = rule.pattern.place(channel)
    whose = f'the token whose sub is "{place}"' if place else "any verified token"
    return f"{whose}, unless it names other channels only, or a server's key"


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}".rstrip()
