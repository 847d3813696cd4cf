"""The documents that describe the wire to programs: OpenAPI 3.1 for HTTP, AsyncAPI 3 for streams and sockets.

Invariant: what a request may have comes from what reads it: the structs of `wire/envelope.py` and `http/users.py`, the
fields of `protocol/query.py`, the grammar of `message.py`, the errors of `errors.py`. What an answer has is in
`schemas.py`; the tests hold both to answers of a server. A path is added in `openapi.py`, a frame in `asyncapi.py`.
"""
