"""The comparison of the four transports: `oncecast compare` measures them side by side. Only the commands import it.

`schedule.py` says when messages are published; `plan.py` holds all that is asked for, within bounds. `grounds.py` has
the servers, `publishing.py` publishes to them. `relay.py` counts the bytes of a transport's connections, and delays
them; `listener.py` listens through it; `tally.py` keeps what comes. `measurement.py` runs it all, with `stopping.py`
for an early end, and `counters.py` makes the lanes of a `ComparisonReport` (`report.py`). `advice.py` reads that;
`table.py`, `markdown.py` and `picture.py` show it, with `figures.py`.
"""
