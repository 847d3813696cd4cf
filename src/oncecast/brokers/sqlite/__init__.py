"""The broker of one machine: the log is an SQLite file that any number of processes share."""
