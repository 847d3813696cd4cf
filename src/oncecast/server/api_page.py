"""`/docs/api`: the documents of `http/documents` as a page to read, without a script."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence

from ..http.documents.schemas import SCHEMAS, Schema

__all__ = ["API_PATH", "api_html", "prose"]

API_PATH = "/docs/api"


def api_html(openapi: Schema, asyncapi: Schema) -> str:
    """Return the page."""
    return _PAGE.format(
        version=html.escape(openapi["info"]["version"]),
        requests="\n".join(_requests(openapi)),
        channels="\n".join(_channels(asyncapi)),
        schemas="\n".join(_schema(name, schema) for name, schema in SCHEMAS.items()),
    )


def _requests(openapi: Schema) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield f'<h3 id="{operation["operationId"]}"><code>{method.upper()} {html.escape(path)}</code></h3>'
            yield f"<p>{prose(operation['summary'])}. {prose(operation.get('description', ''))}</p>"
            rows = [
                (f"<code>{html.escape(each['name'])}</code>", each["in"], prose(each["description"]))
                for each in operation.get("parameters", ())
            ]
            if body := operation.get("requestBody"):
                kinds = ", ".join(f"<code>{kind}</code>{_shape(what)}" for kind, what in body["content"].items())
                rows.append(("body", kinds, prose(body.get("description", ""))))
            if rows:
                yield _table(("name", "in", "meaning"), rows)
            answers = []
            for status, answer in operation["responses"].items():
                if "$ref" not in answer:
                    shapes = "".join(_shape(what) for what in answer.get("content", {}).values())
                    answers.append((f"<code>{status}</code>", prose(answer["description"]), shapes))
            yield _table(("status", "answer", "shape"), answers)


def _channels(asyncapi: Schema) -> Iterator[str]:
    shown: set[str] = set()
    for name, channel in asyncapi["channels"].items():
        yield f'<h3 id="channel-{name}"><code>{html.escape(channel["address"])}</code></h3>'
        yield f"<p>{prose(channel['description'])}</p>"
        if shown >= set(channel["messages"]):  # the frames of the channel before
            continue
        shown |= set(channel["messages"])
        ways = {
            message["$ref"].rpartition("/")[2]: "to the client" if operation["action"] == "send" else "to the server"
            for operation in asyncapi["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{name}"
            for message in operation["messages"]
        }
        yield _table(
            ("message", "goes", "meaning", "fields"),
            [
                (f"<code>{kind}</code>", ways[kind], prose(message["summary"]), _fields(message["payload"]))
                for kind, message in channel["messages"].items()
            ],
        )


def _fields(schema: Schema) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_fields, schema["anyOf"])))
    return ", ".join(f"<code>{name}</code>" for name in schema.get("properties", {}) if name != "type")


def _schema(name: str, schema: Schema) -> str:
    text = html.escape(json.dumps(schema, indent=2, ensure_ascii=False))
    about = f"<p>{prose(schema['description'])}</p>"
    return f'<h3 id="{name}">{name}</h3>\n{about}\n<div class="scroll"><pre><code>{text}</code></pre></div>'


def _shape(content: Schema) -> str:
    return f" {_link(content['schema']['$ref'])}" if "$ref" in content["schema"] else ""


def _link(target: str) -> str:
    name = target.rpartition("/")[2]
    return f'<a href="#{name}">{name}</a>'


def prose(text: str) -> str:
    """Return a sentence as HTML, what stands in backquotes as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "\n".join(
        "<tr>" + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(head, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API · Oncecast</title>
<link rel="icon" href="../web/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../web/style.css">
</head>
<body class="document">
<main>
<p><a href="../">Oncecast</a></p>
<h1>API</h1>
<p>Version {version}. For programs: <a href="../v1/openapi.json">OpenAPI 3.1</a> has the requests,
<a href="../v1/asyncapi.json">AsyncAPI 3</a> the streams and sockets. Every request can also be answered with an
<a href="errors">error</a>.</p>
<h2>Requests</h2>
{requests}
<h2>Streams and sockets</h2>
{channels}
<h2>Shapes</h2>
{schemas}
</main>
</body>
</html>
"""
