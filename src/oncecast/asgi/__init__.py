"""The realtime routes inside an ASGI application: the sessions and routes of the server, carried by ASGI.

The public face is `oncecast.Oncecast`.
"""
