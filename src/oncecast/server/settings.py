"""The settings of one server: every key once, with its default, its range and its one-line explanation.

The checks, the errors, the example file (`config/`) and the reference page are made from this declaration. To add a
setting, add a field with its `Meta`; where it can contradict another, add a rule to `config/contradictions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct, field

from ..policy.access import ALLOW_ALL, Access
from ..policy.channels import ChannelRules
from ..policy.forwarded import ForwardedHeader
from ..policy.limits import MIB, Limits
from ..policy.rules import AccessRules, Allowed

__all__ = [
    "DEFAULT_BROKER",
    "MEMORY",
    "SECRETS",
    "SQLITE",
    "AuthSettings",
    "ChannelRule",
    "Limits",
    "LogForm",
    "LogLevel",
    "RetentionSettings",
    "Settings",
    "access_rules",
    "channel_rules",
    "has_keys",
    "may_be_reached",
    "revocation_seconds",
]

MEMORY = "memory://"  # what `dev` uses where no broker is named
SQLITE = "sqlite:///"  # then a path; an absolute one makes a fourth slash
DEFAULT_BROKER = f"{SQLITE}oncecast.db"

SECRETS = frozenset({("auth", "secret")})  # settings that no file may hold and no command prints

LagName = Literal["resume", "latest", "disconnect"]
Durability = Literal["process", "fsync"]
LogForm = Literal["off", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Compiled = TypeVar("Compiled")


class RetentionSettings(Struct, frozen=True, kw_only=True):
    """How much of a channel's log is kept for listeners that come back. The bound that is met first trims."""

    messages: Annotated[int, Meta(ge=1, le=100_000_000, description="Messages kept per channel.")] = 10_000
    seconds: Annotated[float, Meta(ge=1, le=315_360_000, description="Seconds that a message is kept.")] = 3600.0
    bytes: Annotated[
        int, Meta(ge=65536, le=2**50, description="Bytes that the messages of all channels may take in memory.")
    ] = 256 * MIB
    key_seconds: Annotated[
        float, Meta(ge=1, le=31_536_000, description="Seconds for which the same Idempotency-Key is one message.")
    ] = 86_400.0


class AuthSettings(Struct, frozen=True, kw_only=True):
    """Identities: the keys that verify the tokens of users, and the keys of your own servers.

    No credentials are looked at while none of these is set: `secret`, `secret_file`, `public_key_file`, `jwks_url`,
    `server_keys`.
    """

    secret: Annotated[
        str | None,
        Meta(
            description="The secret of HS256 tokens; in the variable only, never in a file of settings.",
            examples=["made with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"],
        ),
    ] = None
    secret_file: Annotated[
        str | None,
        Meta(description="A file with the secret, or several, one on each line.", examples=["/etc/oncecast.secret"]),
    ] = None
    public_key_file: Annotated[
        str | None,
        Meta(
            description="A PEM file with the issuer's public key, or several: RSA, EC P-256, Ed25519.",
            examples=["issuer.pem"],
        ),
    ] = None
    jwks_url: Annotated[
        str | None,
        Meta(
            description="Where the issuer publishes its keys, as a JWK set.",
            examples=["https://login.example.com/.well-known/jwks.json"],
        ),
    ] = None
    jwks_seconds: Annotated[float, Meta(ge=30, le=86_400, description="Seconds between two fetches of these keys.")] = (
        300.0
    )
    algorithms: Annotated[
        tuple[str, ...],
        Meta(description="Algorithms that are taken: HS256, RS256, ES256, EdDSA. Empty: those of the keys."),
    ] = ()
    issuer: Annotated[
        str | None, Meta(description="What a token's iss must be.", examples=["https://login.example.com/"])
    ] = None
    audience: Annotated[
        tuple[str, ...], Meta(description="One of these must be in a token's aud. Empty: a token may have no aud.")
    ] = ()
    leeway_seconds: Annotated[
        float, Meta(ge=0, le=300, description="Seconds by which the issuer's clock may differ from this server's.")
    ] = 30.0
    max_token_seconds: Annotated[
        float, Meta(ge=60, le=31_536_000, description="Longest life of a token, from its iat to its exp.")
    ] = 604_800.0
    cookie: Annotated[
        str | None, Meta(description="A cookie that may hold the token, on your own origins.", examples=["session"])
    ] = None
    server_keys: Annotated[
        tuple[str, ...],
        Meta(description="Hashes of the keys of your servers, NAME:sha256:HEX, as `oncecast key create` prints them."),
    ] = ()


class ChannelRule(Struct, frozen=True, kw_only=True):
    """What differs for the channels of one pattern. `None` means the value of `[retention]` or `[limits]`, or no limit.

    As soon as any rule names `subscribe` or `publish`, access rules are on: see `access_rules`.
    """

    subscribe: Annotated[
        Allowed | None,
        Meta(
            description="Who may listen: public (everybody), token (users with a token), server (server keys only). "
            "Left out, server, as soon as any table names subscribe or publish.",
            examples=["public"],
        ),
    ] = None
    publish: Annotated[
        Allowed | None,
        Meta(description="Who may publish, with the same words.", examples=["token"]),
    ] = None
    message_bytes: Annotated[
        Annotated[int, Meta(ge=1, le=64 * MIB)] | None,
        Meta(description="Bytes of one message's data, if below [limits]'s.", examples=[65536]),
    ] = None
    publishes_per_second: Annotated[
        Annotated[float, Meta(ge=0.001, le=10_000_000)] | None,
        Meta(description="Messages a second to one channel, of everybody; past that, 429.", examples=[100.0]),
    ] = None
    bytes_per_second: Annotated[
        Annotated[float, Meta(ge=1, le=2**40)] | None,
        Meta(description="Bytes of messages a second to one channel, of everybody.", examples=[1048576.0]),
    ] = None
    user_publishes_per_second: Annotated[
        Annotated[float, Meta(ge=0.001, le=10_000_000)] | None,
        Meta(description="Messages a second to one channel, of one user.", examples=[5.0]),
    ] = None
    user_bytes_per_second: Annotated[
        Annotated[float, Meta(ge=1, le=2**40)] | None,
        Meta(description="Bytes of messages a second to one channel, of one user.", examples=[65536.0]),
    ] = None
    messages: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None,
        Meta(description="Messages kept per channel, instead of [retention]'s."),
    ] = None
    seconds: Annotated[
        Annotated[float, Meta(ge=1, le=315_360_000)] | None,
        Meta(description="Seconds that a message is kept, instead of [retention]'s."),
    ] = None
    lag: Annotated[
        LagName,
        Meta(description="For readers that fall behind: resume (miss nothing), latest (skip ahead), disconnect."),
    ] = "resume"


class Settings(Struct, frozen=True, kw_only=True):
    """All settings of one server. `channels` maps a channel name, or a prefix and `*`, to its rule.

    The default broker is in memory, for use inside another program; `oncecast serve` uses `DEFAULT_BROKER` instead.
    """

    host: Annotated[str, Meta(min_length=1, description="The address to listen on, or a name: then all of its.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes any free one.")] = 8000
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | Literal["auto"],
        Meta(description='Processes that serve together; "auto" is one for each usable core.'),
    ] = 1
    app: Annotated[
        str | None,
        Meta(
            description="An ASGI application to serve on the same port, MODULE:NAME; uvicorn runs it in each process.",
            examples=["shop.main:app"],
        ),
    ] = None
    broker: Annotated[str, Meta(min_length=1, description="Where messages are ordered and kept.")] = MEMORY
    durability: Annotated[
        Durability,
        Meta(
            description="What an acknowledged message survives, in a file: process, any crash; fsync, power cuts too."
        ),
    ] = "process"
    public: Annotated[
        bool,
        Meta(description="Whether other machines may connect to a server without access rules, and so publish."),
    ] = False
    origins: Annotated[
        tuple[str, ...], Meta(description='Other origins whose pages may connect: scheme://host[:port], or "*".')
    ] = ()
    hosts: Annotated[
        tuple[str, ...],
        Meta(
            description='Hosts that requests may be for: a name, "*.example.com" or "*". '
            "Empty: on loopback the loopback names, else any."
        ),
    ] = ()
    tls: Annotated[
        bool, Meta(description="TLS with a certificate for localhost that the server makes itself: for dev alone.")
    ] = False
    tls_cert: Annotated[
        tuple[str, ...],
        Meta(
            description="Certificate chains, PEM files. A client gets the one for the name it asks for, or the first.",
            examples=[["cert.pem"]],
        ),
    ] = ()
    tls_key: Annotated[
        tuple[str, ...],
        Meta(description="The private keys of these, PEM files, in the same order.", examples=[["key.pem"]]),
    ] = ()
    tls_key_password_file: Annotated[
        str | None,
        Meta(
            description="A file with the passphrase of the private keys. Or set ONCECAST_TLS_KEY_PASSWORD itself.",
            examples=["/run/secrets/tls-passphrase"],
        ),
    ] = None
    tls_client_ca: Annotated[
        str | None,
        Meta(description="The CAs that clients' certificates must be of, a PEM file.", examples=["clients-ca.pem"]),
    ] = None
    tls_client: Annotated[
        Literal["required", "optional"],
        Meta(description="With tls_client_ca: whether a client without a certificate is refused."),
    ] = "required"
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Addresses and networks of your proxies, which say whose requests they pass on: 10.0.0.0/8."),
    ] = ()
    forwarded_header: Annotated[
        ForwardedHeader,
        Meta(description="The header in which they do, and that they let no client write: x-forwarded-for, forwarded."),
    ] = "x-forwarded-for"
    proxy_protocol: Annotated[
        bool,
        Meta(description="Connections begin with a header of the PROXY protocol, and come from trusted_proxies only."),
    ] = False
    deflate: Annotated[
        bool, Meta(description="Compress messages for the WebSocket clients that offer it (permessage-deflate).")
    ] = False
    log: Annotated[
        Literal["text", "json"], Meta(description="The form of the server's own log, on standard error.")
    ] = "text"
    log_level: Annotated[LogLevel, Meta(description="The lowest level that the server's own log has.")] = "info"
    access_log: Annotated[
        LogForm, Meta(description="A line on standard error for each request, stream and socket, at its end.")
    ] = "off"
    audit_log: Annotated[
        LogForm, Meta(description="A line on standard error for each request that access rules or limits refuse.")
    ] = "text"
    tracing: Annotated[
        bool,
        Meta(description="Spans of OpenTelemetry for publishes and deliveries; the OTEL_ variables say where they go."),
    ] = False
    dev: Annotated[bool, Meta(description="Development: any host, pages from this machine, a demo, first steps.")] = (
        False
    )
    limits: Limits = field(default_factory=Limits)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    channels: dict[str, ChannelRule] = field(default_factory=dict)


def channel_rules(settings: Settings, make: Callable[[int, float, LagName], Compiled]) -> ChannelRules[Compiled]:
    """Return the rules of all channels, each made of messages, seconds and lag; `[retention]` fills what is None."""
    kept = settings.retention

    def whole(rule: ChannelRule) -> Compiled:
        messages = kept.messages if rule.messages is None else rule.messages
        return make(messages, kept.seconds if rule.seconds is None else rule.seconds, rule.lag)

    return ChannelRules({name: whole(rule) for name, rule in settings.channels.items()}, whole(ChannelRule()))


def access_rules(settings: Settings) -> Access:
    """Return the access rules, compiled: `ALLOW_ALL` where no channel's table names `subscribe` or `publish`.

    With keys in `[auth]`, and no such table, everything wants a token, and allows what the token does.
    """
    if all(rule.subscribe is None and rule.publish is None for rule in settings.channels.values()):
        return AccessRules({"*": ("token", "token")}) if has_keys(settings.auth) else ALLOW_ALL
    return AccessRules(
        {pattern: (rule.subscribe or "server", rule.publish or "server") for pattern, rule in settings.channels.items()}
    )


def has_keys(auth: AuthSettings) -> bool:
    """Return whether the settings name a key, so that credentials are looked at."""
    return any((auth.secret, auth.secret_file, auth.public_key_file, auth.jwks_url, auth.server_keys))


def revocation_seconds(auth: AuthSettings) -> float:
    """Return for how long a revocation has to be known: until no token counts that it refuses.

    Such a token was issued at most one leeway after it, by its issuer's clock. It may live for `max_token_seconds` and
    a leeway, and is taken for one more after its end.
    """
    return auth.max_token_seconds + 3 * auth.leeway_seconds


def may_be_reached(settings: Settings) -> bool:
    """Return whether other machines may connect: there are access rules, or it was said that none are wanted.

    An application has rules of its own: once it is loaded, `asgi/hosting/guest.py` asks the same.
    """
    return settings.app is not None or settings.public or settings.dev or access_rules(settings) is not ALLOW_ALL
