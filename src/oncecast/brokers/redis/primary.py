"""Where the primary is: the host of the URL, what Sentinel says, or the node of a cluster that has the log's slot."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import redis.exceptions
from msgspec.structs import replace
from redis.asyncio.connection import AbstractConnection

from ...errors import ConfigurationError
from ..address import Address, secret
from ..session import Lost
from .faults import CONNECT_SECONDS, CREDENTIALS, of_connecting
from .line import close, connect
from .scripts import PREFIX

SENTINELS = ("redis+sentinel", "rediss+sentinel")

Found = tuple[AbstractConnection, Address]  # an open connection, and the address of that one server


async def connect_primary(address: Address) -> Found:
    """Open a connection to the primary; return it, and the address of that one server.

    Raises `Lost` or `ConfigurationError`.
    """
    context = address.context()
    find = _by_sentinel if address.scheme in SENTINELS else _at
    reasons: list[str] = []
    for host, port in address.hosts:
        try:
            return await find(replace(address, hosts=((host, port),)), context)
        except Lost as reason:
            if str(reason) not in reasons:
                reasons.append(str(reason))
    raise Lost("; ".join(reasons))


async def _at(address: Address, context: ssl.SSLContext | None) -> Found:
    """Return a connection to the node that has the log: the one at this address, or the one it names."""
    host, port = address.hosts[0]
    connection = await connect(address, host, port, context)
    try:
        role = (await _ask(connection, "ROLE"))[0]
        if role == b"sentinel":
            raise ConfigurationError(f"broker: {address}: it is a sentinel: use redis+sentinel://HOST/NAME")
        if role != b"master":
            raise Lost(f"{host}:{port} is a replica: name the primary, or use redis+sentinel://")
        await _ask(connection, "EXISTS", f"{address.options.get('prefix', '')}{PREFIX}:h")
    except redis.exceptions.MovedError as moved:
        await close(connection)
        host = moved.host or host  # a node that does not know its own address names none
        return await connect(address, host, moved.port, context), replace(address, hosts=((host, moved.port),))
    except (redis.exceptions.RedisError, OSError) as error:
        await close(connection)
        raise of_connecting(error, address, host, port) from None
    except BaseException:
        await close(connection)
        raise
    return connection, address


async def _by_sentinel(address: Address, context: ssl.SSLContext | None) -> Found:
    """Return a connection to the primary that the sentinel at this address names, and which says that it is one."""
    name, _, database = address.path.partition("/")
    host, port = address.hosts[0]
    tls = address.tls and address.options.get("sentinel_tls") != "no"
    asked = replace(address, user=None, password=secret(address, "sentinel_password"), path="", tls=tls)
    try:
        found = await _named(asked, name, context if tls else None)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace(CREDENTIALS, "check sentinel_password")) from None
    if found is None:
        raise Lost(f"the sentinel {host}:{port} knows no primary called {name}: correct the path of the URL")
    at = ((found[0].decode(), int(found[1])),)
    return await _at(replace(address, scheme="redis", hosts=at, path=database or "0"), context)


async def _named(address: Address, name: str, context: ssl.SSLContext | None) -> Any:
    """Return the host and the port that a sentinel names, or None."""
    host, port = address.hosts[0]
    sentinel = await connect(address, host, port, context)
    try:
        return await _ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
    except (redis.exceptions.RedisError, OSError) as error:
        if "unknown command" in str(error):
            raise Lost(f"{host}:{port} is no sentinel: name Sentinel's port, which is 26379 by default") from None
        raise of_connecting(error, address, host, port) from None
    finally:
        await close(sentinel)


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    async with asyncio.timeout(CONNECT_SECONDS):
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        return await connection.read_response(disable_decoding=True)
