"""Sockets, signals, processes and settings: the only room that has them."""
