"""The tools for tests of oncecast, and of brokers and transports that live elsewhere."""
