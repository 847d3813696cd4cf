"""What brokers share whose server has one ordered log and no index: each node reads all of it and keeps the index."""
