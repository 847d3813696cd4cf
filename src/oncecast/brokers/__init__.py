"""The sources of order: one contract, one file for each."""
