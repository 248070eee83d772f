"""The ``scoring`` command: the outermost shell. It parses, calls, prints."""

from scoring.garbage import search_seldom

__all__ = ["main"]


def main() -> None:
    """Run the command line; turn our errors into a message and an exit code."""
    search_seldom()
    from scoring.cli.main import main as typed

    typed()
