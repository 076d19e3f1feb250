"""The door: one file a command, found by folder; nothing imports it."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` when no arguments are given) and return the exit code."""
    import os

    from amauta.cli._root import run

    # Two threads that spin for one another fall 3-10 times behind when something else takes a core; sleeping ones do
    # not. Read by OpenMP when torch is imported, so it must stand before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return run(arguments)
