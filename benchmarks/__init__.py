"""`oncecast bench`: what a delivery, a poll, a publish and an idle subscriber cost, beside the floor under each.

Each benchmark is a module here with a function `run(bench, plan)` that yields rows; to add one, write it and add it to
`BENCHMARKS` in `catalogue.py` and to `NAMES` in `cli/bench.py`. `base.py` owns rows and measuring in turns,
`processes.py` pinning and CPU time, `tools.py` the C programs, `arena.py` a server and its floor with subscribers.
"""
