"""The configuration of a new stream, and whether an existing stream can be the log."""

from __future__ import annotations

from typing import Any

import msgspec

CLUSTERED_REPLICAS = 3


class StreamFit(msgspec.Struct, frozen=True):
    """What the log needs of a stream. Without `replicas` it is 1, in a cluster 3."""

    name: str
    key_seconds: float
    replicas: int | None
    clustered: bool

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of a new stream."""
        root = self.name
        return {
            "name": root,
            "subjects": [f"{root}.m.>", f"{root}.t.>", f"{root}.life", f"{root}.lease"],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self.replicas or (CLUSTERED_REPLICAS if self.clustered else 1),
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "discard": "new",
            "duplicate_window": int(self.key_seconds * 1e9),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "republish": {"src": f"{root}.m.>", "dest": f"{root}.r.>"},
        }

    def misfit(self, found: dict[str, Any]) -> str | None:
        """Return what is wrong with a stream that is there, and how to mend it: it was made by somebody else.

        What the server removes by its own rules would be missing without a gap. A limit that refuses is no fault.
        """
        wanted = self.configuration()
        missing = set(wanted["subjects"]) - set(found.get("subjects") or ())
        if missing:
            return f"lacks the subjects {', '.join(sorted(missing))}: add them"
        republish = found.get("republish") or {}
        if {key: republish.get(key) for key in ("src", "dest")} != wanted["republish"] or republish.get("headers_only"):
            return "was made with another republish, which can't be changed: delete it"
        for name in ("retention", "storage"):
            if found.get(name) != wanted[name]:
                return f"was made with {name}={found.get(name)}, not {wanted[name]}, which can't be changed: delete it"
        for name in ("allow_direct", "allow_rollup_hdrs"):
            if not found.get(name):
                return f"has {name} off: set it"
        for name in ("mirror", "sources", "sealed", "deny_delete", "deny_purge", "no_ack", "subject_transform"):
            if found.get(name):
                return f"has {name}, which the log can't have: remove it"
        return self._limits(found) or self._replication(int(found.get("num_replicas") or 1))

    def _limits(self, found: dict[str, Any]) -> str | None:
        if found.get("max_age"):
            return "has max_age, and would drop messages without a mark: set max_age to 0, channels have retention"
        for name in ("max_msgs_per_subject", "max_consumers"):
            if (found.get(name) or -1) > 0:
                return f"has {name}={found[name]}: set it to -1"
        full = [name for name in ("max_bytes", "max_msgs") if (found.get(name) or -1) > 0]
        if full and found.get("discard") != "new":
            return f"has {full[0]} with discard=old, and would drop messages without a mark: set discard to new"
        window = int(found.get("duplicate_window") or 0)
        if window < self.key_seconds * 1e9:
            return (
                f"knows a key for {window / 1e9:g} s: set duplicate_window to {self.key_seconds:g}s, or ?key_seconds="
            )
        return None

    def _replication(self, found: int) -> str | None:
        if self.replicas is not None and found < self.replicas:
            return f"has num_replicas={found}: set it to {self.replicas}, or leave ?replicas= out"
        if self.clustered and found == 1:
            return "has one replica in a cluster, where its server's restart is not seen: set num_replicas to 3"
        return None
