"""What runs inside Redis, the scripts in `lua/`, and the names of the keys.

Every key begins with the prefix and one hash tag, `{oncecast}`, so that a cluster keeps them on one node:

* `{oncecast}:h` a hash: `epoch` names the log, `born` is when it began (Unix milliseconds), `life` is the `run_id` of
  the server that numbers now, `seq` the last number given, `time` the last time given (Unix milliseconds).
* `{oncecast}:c` a sorted set: each channel with its last number.
* `{oncecast}:m` a hash: each channel's trimmed mark, `seq time`.
* `{oncecast}:x` a list: the holes, `before after`.
* `{oncecast}:s:CHANNEL` a stream: the channel's messages, with ids `seq-0` and the fields `d` data, `k` kind,
  `e` event, `t` time in Unix milliseconds.
* `{oncecast}:k:CHANNEL KEY` the number of the message that a key was first used for; it expires.
* `{oncecast}:p:CHANNEL` and `{oncecast}:n:NODE` are names of pub/sub channels, not keys: the messages of a channel, and
  what one node tells itself, in the order of the log.

A script checks `life` before it writes, and before it reads a page: a node that has not opened the log since the server
was restarted, replaced by a replica or emptied is answered with the error `LIFE`. Numbers are doubles in Lua, so the
largest is 2^53.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import msgspec

PREFIX = "{oncecast}"


class Script(msgspec.Struct, frozen=True):
    """A script and the hash that a server knows it by. Its only declared key is the hash `h`, which names the node."""

    text: str
    sha: str


def _script(name: str) -> Script:
    text = (resources.files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")
    return Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - the hash that EVALSHA takes


OPEN = _script("open")
PUBLISH = _script("publish")
PROBE = _script("probe")
TRIM = _script("trim")
PAGE = _script("page")
BACK = _script("back")
SINCE = _script("since")
ALL = (OPEN, PUBLISH, PROBE, TRIM, PAGE, BACK, SINCE)
