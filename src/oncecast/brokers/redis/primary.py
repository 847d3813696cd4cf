"""Where the primary is: the host of the URL, what Sentinel says, or the node of a cluster that has the log's slot."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import redis.exceptions
from msgspec.structs import replace
from redis.asyncio.connection import AbstractConnection

from ...errors import ConfigurationError
from ..address import Address
from ..session import Lost
from .line import CONNECT_SECONDS, close, connect, lost, one_line
from .scripts import PREFIX

SENTINELS = ("redis+sentinel", "rediss+sentinel")


async def connect_primary(address: Address) -> tuple[AbstractConnection, Address]:
    """Open a connection to the primary; return it, and the address of that one server.

    Raises `Lost` or `ConfigurationError`.
    """
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
        try:
            return await _of_slot(replace(address, hosts=((host, port),)), connection, context)
        except Lost as reason:
            reasons.append(str(reason))
    raise Lost("; ".join(reasons))


async def _of_slot(
    address: Address, connection: AbstractConnection, context: ssl.SSLContext | None
) -> tuple[AbstractConnection, Address]:
    """Return a connection to the node that has the log: this one, or the one it names."""
    try:
        role = (await _ask(connection, "ROLE"))[0]
        if role != b"master":
            raise Lost("it is a replica: name the primary, or use redis+sentinel://")
        try:
            await _ask(connection, "EXISTS", f"{address.options.get('prefix', '')}{PREFIX}:h")
        except redis.exceptions.MovedError as moved:
            await close(connection)
            host = moved.host or address.hosts[0][0]  # a node that does not know its own address names none
            return await connect(address, host, moved.port, context), replace(address, hosts=((host, moved.port),))
    except redis.exceptions.ResponseError as error:
        await close(connection)
        raise ConfigurationError(f"broker: {address}: {one_line(error)}") from None
    except (redis.exceptions.RedisError, OSError) as error:
        await close(connection)
        raise lost(error) from None
    except Lost:
        await close(connection)
        raise
    return connection, address


async def _by_sentinel(address: Address, context: ssl.SSLContext | None) -> tuple[AbstractConnection, Address]:
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
            reasons.append(f"{host}:{port}: {lost(error)}")
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
    async with asyncio.timeout(CONNECT_SECONDS):
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        return await connection.read_response(disable_decoding=True)
