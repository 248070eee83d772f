"""The ``scoring`` command: the outermost shell. It parses, calls, prints."""

from scoring.cli.main import main

__all__ = ["main"]
