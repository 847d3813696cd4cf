"""Asks a server, by schemathesis, all that its OpenAPI document allows, and much that it does not.

`python -m tests.proof.openapi_fuzz --seconds 300 --seed N`. schemathesis makes requests from the document alone. An
answer has to have a status, a type and a shape that the document has, and none may be a 500. The server has keys, and
schemathesis the key of a server, so that it may do everything. `CONFIG` has the checks that say nothing here, and why.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import structs

from oncecast.policy.server_keys import KEY_BYTES, hash_line, make_key
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Limits, Settings

__all__ = ["Outcome", "ask"]

CONFIG = """\
[[operations]]
# A schema can't say that only one of after, last and since may be given; and other fields are ignored, not refused.
include-path = "/v1/channels/{names}"
include-method = ["GET", "HEAD"]
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false

[[operations]]
# Only a WebSocket may connect, which schemathesis does not open.
include-path = "/v1/connect"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false

[[operations]]
# A body may be of any type: the type only says what is kept. A line of a batch may be refused, in an answer of 200.
include-path-regex = "^/v1/(channels/.*|publish)$"
include-method = "POST"
checks.negative_data_rejection.enabled = false
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How schemathesis ended, what it has printed, and how many requests the server has answered."""

    status: int
    text: str
    answered: int


def write_config(directory: str) -> None:
    """Write what schemathesis reads where it is started."""
    Path(directory, "schemathesis.toml").write_text(CONFIG, "utf-8")


async def ask(*options: str, seed: int, seconds: float) -> Outcome:
    """Start a server, let schemathesis ask it, and return the outcome. Raises `TimeoutError` after `seconds`."""
    key = make_key(secrets.token_bytes(KEY_BYTES))
    limits = structs.replace(Limits(), wait_seconds=1.0, publishes_per_second=1_000_000, frames_per_second=1_000_000)
    auth = AuthSettings(secret=secrets.token_hex(32), server_keys=(hash_line("proof", key),))
    server = Server(Settings(port=0, limits=limits, auth=auth))
    await server.start()
    try:
        with TemporaryDirectory() as directory:
            write_config(directory)
            base = f"http://127.0.0.1:{server.port}"
            process = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{base}/v1/openapi.json", "--url", base),
                *("--header", f"Authorization: Bearer {key}", "--seed", str(seed), "--no-color", "--warnings", "off"),
                *("--continue-on-failure", "--request-timeout", "30", "--generation-database", "none", *options),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "NO_PROXY": "127.0.0.1"},
            )
            try:
                text, _ = await asyncio.wait_for(process.communicate(), seconds)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise
    finally:
        await server.stop()
    counters = server.app.counters
    return Outcome(process.returncode or 0, text.decode(), sum(counters.requests.values()) + counters.remembered)


def main() -> int:
    """Run for as long as asked, print what schemathesis says, and return its status."""
    parser = argparse.ArgumentParser(description="Asks a server all that its OpenAPI document allows.")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    options = ("--max-examples", "100000", "--max-time", str(given.seconds), "--phases", "coverage,fuzzing")
    outcome = asyncio.run(ask(*options, seed=given.seed, seconds=given.seconds * 3 + 600))
    said = f"{outcome.text}\nseed {given.seed}: {outcome.answered} requests answered, status {outcome.status}\n"
    sys.stdout.write(said)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
