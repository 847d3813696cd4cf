"""Allow, or raise a coded error."""
