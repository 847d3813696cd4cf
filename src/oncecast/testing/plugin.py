"""The pytest plugin: fixtures for whoever tests against oncecast."""
