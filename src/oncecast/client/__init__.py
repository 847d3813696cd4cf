"""The Python client: subscribe and publish over any of the four transports, resuming by cursor.

Read `base.py` (the contract), then a transport, then `subscription.py`. Uses `wire`, `message` and `errors` only.
"""
