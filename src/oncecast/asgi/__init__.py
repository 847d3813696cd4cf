"""The realtime routes inside an application of one's own: the same sessions and routes, carried by ASGI.

The public face is `oncecast.Oncecast`.
"""
