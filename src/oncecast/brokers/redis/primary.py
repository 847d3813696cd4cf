"""Where the primary is: the host of the URL, what Sentinel says, or the node of a cluster that has the log's slot."""

from __future__ import annotations

import ssl
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from ...errors import ConfigurationError
from ..address import Address
from ..session import Lost
from .line import close, connect, lost, one_line
from .scripts import PREFIX

SENTINELS = ("redis+sentinel", "rediss+sentinel")


async def connect_primary(address: Address) -> AbstractConnection:
    """Open a connection to the primary. Raises `Lost` or `ConfigurationError`."""
    context = address.context()
    if address.scheme in SENTINELS:
        return await _by_sentinel(address, context)
    reasons = []
    for host, port in address.hosts:
        try:
            connection = await connect(address, host, port, context)
        except Lost as reason:
            reasons.append(str(reason))
            continue
        return await _of_slot(address, connection, context)
    raise Lost("; ".join(reasons))


async def _of_slot(
    address: Address, connection: AbstractConnection, context: ssl.SSLContext | None
) -> AbstractConnection:
    """Return a connection to the node that has the log: this one, or the one it names."""
    try:
        role = (await _ask(connection, "ROLE"))[0]
        if role != b"master":
            raise Lost("it is a replica: name the primary, or use redis+sentinel://")
        try:
            await _ask(connection, "EXISTS", f"{address.options.get('prefix', '')}{PREFIX}:h")
        except redis.exceptions.MovedError as moved:
            await close(connection)
            return await connect(address, moved.host, moved.port, context)
    except redis.exceptions.ResponseError as error:
        await close(connection)
        raise ConfigurationError(f"broker: {address}: {one_line(error)}") from None
    except (redis.exceptions.RedisError, OSError) as error:
        await close(connection)
        raise lost(error) from None
    except Lost:
        await close(connection)
        raise
    return connection


async def _by_sentinel(address: Address, context: ssl.SSLContext | None) -> AbstractConnection:
    name, _, database = address.path.partition("/")
    reasons = []
    for host, port in address.hosts:
        at = Address("redis", ((host, port),), None, address.options.get("sentinel_password"), "0", {}, False)
        try:
            sentinel = await connect(at, host, port, None)
        except Lost as reason:
            reasons.append(f"{host}:{port}: {reason}")
            continue
        try:
            found = await _ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        except (redis.exceptions.RedisError, OSError) as error:
            reasons.append(f"{host}:{port}: {one_line(error)}")
            continue
        finally:
            await close(sentinel)
        if found is None:
            reasons.append(f"{host}:{port} knows no primary called {name}")
            continue
        primary = Address(
            "redis",
            ((found[0].decode(), int(found[1])),),
            address.user,
            address.password,
            database or "0",
            address.options,
            address.tls,
        )
        connection = await connect(primary, *primary.hosts[0], context)
        return await _of_slot(primary, connection, context)
    raise Lost("; ".join(reasons))


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response(disable_decoding=True)
