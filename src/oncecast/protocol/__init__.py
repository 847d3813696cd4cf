"""What each transport says, message by message, without framing: a session of one contract in each file."""
