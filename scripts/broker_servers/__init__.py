"""Real broker servers on loopback: installed, started, stopped, killed and put back to an older disk.

`scripts/brokers` is the command for a person; the tests import this package and start servers of their own. Each server
is a process in a directory of its own, which holds its data, its log and its pid. It is stopped by that pid. Only the
standard library is used, so that the command works before `.venv` is made.
"""
