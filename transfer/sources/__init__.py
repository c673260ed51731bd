"""One file per checkpoint format that can be read."""
