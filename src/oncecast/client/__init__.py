"""The Python client: subscribe and publish over any of the four transports, resuming by cursor.

Its public names are those of `oncecast`. Read `base.py` (the contract) and `failures.py` (how things end), then a
transport, then `places.py`, `feed.py`, `session.py`, `link.py`, and the two faces, `async_client.py` and `blocking.py`.
Uses `wire`, `message` and `errors` only.
"""
