"""Fuzz a target, or each in turn: `python -m tests.fuzz [TARGET …] [--runs N | --seconds S]`.

The inputs come from atheris (libFuzzer), which measures what each of them reaches. What it finds of interest is kept in
`build/fuzz/TARGET`, where the next run begins. An input that breaks an invariant is written to `build/fuzz/` as
`TARGET-crash-…`: mend the fault, and copy the input into `tests/fuzz/cases/TARGET`, which the tests run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

WORK = Path("build/fuzz")
FAILED_CODE = 77  # libFuzzer's exit code of a crash
SLOW_SECONDS = 10  # of one input: a hang, as inputs are small
RSS_MIB = 1024
# Of an input: the limits that a parser is held to here are lower, so that more bytes would be more of the same.
MOST_BYTES = 400
MORE_BYTES = {"envelopes": 1200, "jwk_sets": 1200, "tokens": 1200}  # brackets past the depth, several keys


def main() -> int:
    """Run each target in a process of its own, as libFuzzer ends its process."""
    from .targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--runs", type=int, help="how many inputs each target gets")
    parser.add_argument("--seconds", type=int, help="for how long each target is run; 60 by default, without --runs")
    options = parser.parse_args()
    unknown = {*options.targets} - {*TARGETS}
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    bounds = [] if options.runs is None else [f"-runs={options.runs}"]
    if options.seconds or not bounds:
        bounds.append(f"-max_total_time={options.seconds or 60}")
    results = [_run(name, bounds) for name in options.targets or TARGETS]
    return max(results)


def _run(name: str, bounds: list[str]) -> int:
    from .pieces import CUTS
    from .seeds import DICTIONARY, SEEDS

    corpus, seeds = WORK / name, WORK / f"{name}-seeds"
    for folder in (corpus, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        # Inputs are made of the seeds. Cut byte by byte as here, each of them would take ten times as long.
        (seeds / f"{number:03}").write_bytes(seed[:1] + bytes([CUTS + number]) + seed[2:] if number else seed)
    most = MORE_BYTES.get(name, MOST_BYTES)
    arguments = [f"-artifact_prefix={WORK}/{name}-", f"-max_len={most}", f"-timeout={SLOW_SECONDS}"]
    arguments += [f"-rss_limit_mb={RSS_MIB}", "-print_final_stats=1", *bounds]
    if words := DICTIONARY.get(name):
        file = WORK / f"{name}.dict"
        lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)
        file.write_text("".join(lines), "ascii")
        arguments.append(f"-dict={file}")
    command = [sys.executable, "-m", "tests.fuzz.child", name, *arguments, str(corpus), str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    runs = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
    speed = re.findall(r"average_exec_per_sec: +(\d+)", done.stderr)
    reached = re.findall(r" cov: (\d+) ", done.stderr)
    if done.returncode or not runs:
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n", file=sys.stderr)
    figures = f"{runs[-1] if runs else '?':>12} inputs, {speed[-1] if speed else '?':>7}/s, {reached[-1:]} edges"
    print(f"{name:16} {figures} {'ok' if not done.returncode else 'FAILED'}", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
