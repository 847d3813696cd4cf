"""Run the few tests that failed beside others once more, by themselves: `python -m tests.again STATUS`.

`make test` runs several tests at a time on every core, on a machine that others use as well, and a wait of a test may
then be too short. A test that fails is printed, and run three times more with no other beside it. One that fails again
fails the run. One that passes three times is named as unsteady: the test is to blame, or the project is, by a race that
needs a busy machine, so look into it. More than a few that fail are no accident, and nothing is run again; nor after
anything but failed tests: a run that was broken off, or an error of pytest itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MOST_TESTS = 3  # a run has 13,000
TIMES = 3
FAILED = 1  # pytest's exit status where tests have failed, and nothing else is wrong
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def run(status: int, options: Sequence[str] = ()) -> int:
    """Run what has failed in the run of pytest that ended with `status`. Return the exit status of the whole."""
    if status != FAILED:
        return status
    failed = list(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    if not 0 < len(failed) <= MOST_TESTS:
        sys.stderr.write(f"{len(failed) or 'no'} failed tests are known to pytest; none is run again\n")
        return FAILED
    for name in failed * TIMES:
        command = [sys.executable, "-m", "pytest", "-n", "0", "--verbose", *options, name]
        if (again := subprocess.run(command, check=False).returncode) != 0:
            return again
    for name in failed:
        sys.stderr.write(f"unsteady: {name} failed beside other tests and passed {TIMES} times alone. Look into it.\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
