"""The broker on NATS: a JetStream stream numbers and keeps, its republished messages are followed."""
