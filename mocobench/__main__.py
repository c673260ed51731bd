"""`python -m mocobench`."""

from mocobench.cli import entry_point

entry_point()
