"""`oncecast bench`: the cost of a delivery, a poll, a publish and an idle subscriber, each beside its floor.

A floor is the least that the same work can cost: a bare C loop, nginx, the disk. Each benchmark is a module with a
function `run(bench, plan)` that yields rows. To add one, write the module, and add it to `BENCHMARKS` in `catalogue.py`
and to `NAMES` in `cli/bench.py`. `base.py` has rows and alternating measurements, `processes.py` pinning and CPU time,
`tools.py` the C programs, `arena.py` a server and its floor, each with subscribers.
"""
