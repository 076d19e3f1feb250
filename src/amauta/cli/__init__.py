"""The door: one file a command, found by folder; nothing imports it."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` when no arguments are given) and return the exit code."""
    from amauta.cli._root import run

    return run(arguments)
