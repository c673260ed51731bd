"""The command `mocobench` and the services that every stage stands on."""

__version__ = "0.1.0"
