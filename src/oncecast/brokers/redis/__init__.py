"""The broker on Redis and Valkey: one script numbers, a stream for each channel keeps, pub/sub delivers."""
