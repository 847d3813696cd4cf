"""The four ways to listen: one contract, the whole life of a subscriber in each file."""
