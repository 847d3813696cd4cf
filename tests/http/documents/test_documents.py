"""The documents about the wire: they are what their standards allow, and say what the server does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from oncecast import Oncecast
from oncecast.errors import ERRORS
from oncecast.http.documents.asyncapi import ASYNCAPI, asyncapi
from oncecast.http.documents.openapi import OPENAPI, openapi
from oncecast.http.documents.schemas import FRAMES, SCHEMAS
from oncecast.message import Reason
from oncecast.protocol.query import FIELDS, parse_query
from oncecast.server.api_page import API_PATH
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.wire import draft_fields, v1_frames

VECTORS = Path(__file__).parent.parent.parent.parent / "spec" / "vectors"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a file of vectors."""
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))["cases"]
    return found


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Checks a value by a schema that may refer to others of the documents, and allows no property that none names."""
    known = {name: closed(each) for name, each in SCHEMAS.items()}
    return jsonschema.Draft202012Validator({**closed(schema), "components": {"schemas": known}})


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no property but those that are named."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


def frame(kind: str, way: str = "sent") -> dict[str, Any]:
    """The schema of a frame of `oncecast.v1`."""
    (found,) = [each for each in FRAMES[way] if each["properties"]["type"]["const"] == kind]
    return found


def test_openapi_is_openapi() -> None:
    """The document is what OpenAPI 3.1 allows, and no two operations have one name."""
    OpenAPIV31SpecValidator(openapi()).validate()
    names = [each["operationId"] for methods in openapi()["paths"].values() for each in methods.values()]
    assert sorted(set(names)) == sorted(names)


def test_the_check_of_openapi_can_fail() -> None:
    """A response without a description is refused."""
    broken = openapi()
    del broken["paths"]["/v1/publish"]["post"]["responses"]["200"]["description"]
    with pytest.raises(Exception, match="description"):
        OpenAPIV31SpecValidator(broken).validate()


def test_every_reference_leads_somewhere() -> None:
    """Each `$ref` of either document is a place in it."""
    for document in (openapi(), asyncapi()):
        for target in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
            place: Any = document
            for part in target.removeprefix("#/").split("/"):
                place = place[part]


def test_every_error_has_its_status() -> None:
    """The documents name each code of an error, and each status."""
    assert list(ERRORS) == SCHEMAS["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert {f"Error{row.status}" for row in ERRORS.values()} == set(openapi()["components"]["responses"])


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_query_is_read(name: str) -> None:
    """A field of the table is one that the query reads: it is refused twice, and others are not."""
    with pytest.raises(Exception, match="twice"):
        parse_query(f"{name}=1&{name}=1")
    assert parse_query("other=1&another=1") == parse_query("")


@pytest.mark.parametrize("case", cases("messages"), ids=lambda case: case["name"])
def test_a_message_is_as_described(case: dict[str, Any]) -> None:
    """Each message of the vectors has the shape of the document, in an answer and in a frame."""
    validator(SCHEMAS["Message"]).validate(json.loads(case["json"]))
    validator(frame("message")).validate({"type": "message", **json.loads(case["json"])})


@pytest.mark.parametrize("case", cases("polls"), ids=lambda case: case["name"])
def test_an_answer_to_a_poll_is_as_described(case: dict[str, Any]) -> None:
    """Each answer of the vectors has the shape of the document."""
    validator(SCHEMAS["PollAnswer"]).validate(json.loads(case["answer"]))


@pytest.mark.parametrize("case", cases("v1_frames"), ids=lambda case: case["name"])
def test_a_clients_frame_is_as_described(case: dict[str, Any]) -> None:
    """What the server reads is a frame of the document, and what it refuses is none; but for what no schema can say."""
    schema = validator({"anyOf": list(FRAMES["received"])})
    try:
        value = json.loads(case["frame"])
    except ValueError:
        return
    if "parsed" in case:
        schema.validate(value)
    elif "surrogate" not in case["name"] and "twice" not in case["name"] and "deep" not in case["name"]:
        assert not schema.is_valid(value)


@pytest.mark.parametrize("case", cases("lines"), ids=lambda case: case["name"])
def test_a_line_of_a_batch_is_as_described(case: dict[str, Any]) -> None:
    """A line that the server takes is one of the document."""
    try:
        draft_fields.parse_line(case["line"].encode())
    except Exception:  # noqa: BLE001 - it is refused
        return
    validator(SCHEMAS["BatchLine"]).validate(json.loads(case["line"]))


def test_a_struct_that_gets_a_field_changes_the_document() -> None:
    """What reads a request and what the document says are one: no field is missing there."""
    for struct, schema in (
        (draft_fields.BatchLine, SCHEMAS["BatchLine"]),
        (v1_frames.Publish, frame("publish", "received")),
    ):
        named = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert named == set(schema["properties"]) - {"type"}
    assert {reason.value for reason in Reason} == set(SCHEMAS["Gap"]["properties"]["reason"]["enum"])


# Served ----------------------------------------------------------------------------------------------------------


async def check_served(client: httpx.AsyncClient) -> None:
    """Both documents and the page are there, with the headers of a page."""
    for path, document in ((OPENAPI, openapi()), (ASYNCAPI, asyncapi())):
        answer = await client.get(path)
        assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
        assert document == answer.json()
        again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert 304 == again.status_code
        assert 405 == (await client.post(path, content=b"1")).status_code
    page = await client.get(API_PATH)
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert not re.search(r"https?://", page.text)
    for operation in re.findall(r'id="([^"]+)"', page.text):
        assert 1 == page.text.count(f'id="{operation}"')
    for target in re.findall(r'href="#([^"]+)"', page.text):
        assert f'id="{target}"' in page.text


async def test_a_server_serves_them() -> None:
    """The native server has them at its root."""
    server = Server(Settings(port=0, public=True))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            await check_served(client)
            for path in openapi()["paths"]:
                asked = await client.request("OPTIONS", path.replace("{names}", "news"))
                methods = {method.upper() for method in openapi()["paths"][path]}
                assert methods <= set(asked.headers["allow"].split(", "))
    finally:
        await server.stop()


async def test_an_application_serves_them() -> None:
    """Within an application they are where it is mounted."""
    cast = Oncecast(dev=True)
    async with cast:
        transport = httpx.ASGITransport(app=cast)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await check_served(client)


def each_payload() -> Iterator[dict[str, Any]]:
    """Each payload of the AsyncAPI document."""
    for channel in asyncapi()["channels"].values():
        yield from (message["payload"] for message in channel["messages"].values())


def test_every_payload_is_a_schema() -> None:
    """Each is a JSON Schema that can be checked by."""
    for payload in each_payload():
        jsonschema.Draft202012Validator.check_schema(payload)
