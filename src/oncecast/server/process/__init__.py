"""A server as one process or as several: the supervisor, its workers, and what they say to each other."""
