"""The broker on RabbitMQ: one stream queue is the log, reached by the stream protocol."""
