"""What tests of oncecast, and of brokers and transports written elsewhere, are made with."""
