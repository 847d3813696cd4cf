"""The core of a node: the log in memory, subscriptions, the hub that serves them, and the node."""
