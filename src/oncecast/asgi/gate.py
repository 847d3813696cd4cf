"""Finds the identity of a request before the routes answer it.

Hosts and origins are checked first, as for the native server, so that no function of the application is called for a
page that may not connect, and no cookie counts for a foreign page. Then come the credentials of the settings, and
last the application's own function.
"""

from __future__ import annotations

from functools import partial

from ..errors import Refusal
from ..http.credentials import trusts_cookies
from ..http.pages import PROBES
from ..http.routes import redeems
from ..http.service import Service
from ..policy.access import ALLOW_ALL, Access
from ..policy.identity import Identity
from ..policy.rules import AccessRules, Allowed
from ..policy.tokens import TOKEN_CHARS
from ..server.expiries import DISCONNECTED
from ..server.settings import Settings, access_rules
from ..wire import http1
from .callers import Caller, WhoAsks, ask
from .connection import AsgiConnection
from .life import AppLife
from .scopes import Scope, server_of

__all__ = ["Unruled", "access_of", "find_holder", "find_out", "renew"]


class Unruled(Access):
    """The access without rules, words and a function: only the application may publish and listen."""

    __slots__ = ()

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        """Raise `Refusal`."""
        raise _unruled(f"listen to {', '.join(channels)}", 'subscribe="public"')

    def is_public(self, channels: tuple[str, ...], /) -> bool:
        """Return False."""
        return False

    def publish(self, identity: Identity, channel: str, /) -> None:
        """Raise `Refusal`."""
        raise _unruled(f"publish to {channel}", 'publish="public"')


def _unruled(doing: str, cure: str) -> Refusal:
    return Refusal(
        "forbidden",
        f"Nothing says who may {doing}: give Oncecast {cure} if everybody may, a function by @cast.authorize, or "
        'tables [channels."PATTERN"] in the settings.',
    )


def access_of(settings: Settings, subscribe: Allowed | None, publish: Allowed | None, *, authorizes: bool) -> Access:
    """Return the access rules. `subscribe` and `publish` hold for every channel without a table of its own."""
    if subscribe is not None or publish is not None:
        rules: dict[str, tuple[Allowed, Allowed]] = {"*": (subscribe or "server", publish or "server")}
        for pattern, rule in settings.channels.items():
            if rule.subscribe is not None or rule.publish is not None:
                rules[pattern] = (rule.subscribe or "server", rule.publish or "server")
        return AccessRules(rules)
    given = access_rules(settings)
    if given is not ALLOW_ALL or settings.dev:
        return given
    return AccessRules({"*": ("token", "token")}) if authorizes else Unruled()


async def find_out(
    life: AppLife, connection: AsgiConnection, scope: Scope, authorize: WhoAsks | None, seconds: float
) -> None:
    """Set the identity of a connection. Raises `Refusal`."""
    app, request = life.app, connection.request
    if request.path not in PROBES:
        life.check_host(request.headers.get("host"), server_of(scope))
    if not request.path.startswith("/v1/"):
        return
    app.hosts.check(request.headers.get("host"))
    cors = app.check_origin(request)
    if request.method == "OPTIONS":  # a preflight has no credentials
        return
    app.identify(connection, request)
    if authorize is None:
        return
    cookies = trusts_cookies(request, cors)
    connection.renew = partial(renew, app, connection.identity.address, request, scope, authorize, seconds, cookies)
    if redeems(app, request):  # the function was asked when the ticket was issued
        return
    caller = Caller(request, scope, connection.identity, cookies=cookies)
    connection.identity = await find_holder(app, authorize, caller, seconds)


async def renew(
    app: Service,
    address: str,
    request: http1.Request,
    scope: Scope,
    authorize: WhoAsks,
    seconds: float,
    cookies: bool,
    token: str,
) -> Identity:
    """Return whom a token of an open socket stands for, as if its handshake had come with it. Raises `Refusal`."""
    if not (0 < len(token) <= TOKEN_CHARS and token.isascii() and token.isprintable() and token == token.strip()):
        raise Refusal("unauthorized", f"A token has 1 to {TOKEN_CHARS} characters of ASCII, without spaces around it.")
    verified = Identity(address) if app.authenticator is None else app.verify(token, address)
    caller = Caller(request, scope, verified, cookies=cookies, token=token)
    found = await find_holder(app, authorize, caller, seconds)
    if found.kind == "anybody":
        raise Refusal("request_invalid", "The application takes no token here: leave it out.")
    return found


async def find_holder(app: Service, authorize: WhoAsks, caller: Caller, seconds: float) -> Identity:
    """Ask who a caller is. Raises `Refusal`, also where that user was disconnected or revoked meanwhile."""
    before = app.ended.count
    found = await ask(authorize, caller, app.wall(), seconds)
    if found.kind == "token" and app.ended.since(found.subject or "", before):
        raise DISCONNECTED.with_traceback(None)
    app.check_counts(found)
    return found
