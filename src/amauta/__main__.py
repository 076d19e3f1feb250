"""``python -m amauta`` is the command ``amauta``."""

from amauta.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
