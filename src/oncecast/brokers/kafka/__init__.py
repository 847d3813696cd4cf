"""The broker on Apache Kafka: one topic of one partition is the log."""
