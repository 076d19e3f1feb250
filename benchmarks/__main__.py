"""``python -m benchmarks [NAME …] [--json]``: some benchmarks, or all. A file in this folder is one, found by name.

Each has ``run() -> dict`` with ``ratios`` (ours over the peer's, above 1 is faster) and ``share_of_limit``.
"""

import argparse
import importlib
import inspect
import json
import os
from pathlib import Path


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does; peers get the same
    names = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names)}; all when left out")
    parser.add_argument("--json", action="store_true", help="one JSON line a benchmark")
    parser.add_argument("--budget", type=float, help="seconds, for a benchmark that can take less time (reformer)")
    parser.add_argument("--out", type=Path, help="keeps the parts of a benchmark that can go on (prompting)")
    given = parser.parse_args()
    for name in given.name:
        if name not in names:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(names)}")
    for name in given.name or names:
        module = importlib.import_module(f"benchmarks.{name}")
        known = inspect.signature(module.run).parameters
        more = {"budget": given.budget, "out": given.out}
        found = module.run(**{key: value for key, value in more.items() if value is not None and key in known})
        if given.json:
            print(json.dumps({"benchmark": name, **found}))
        else:
            print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
            print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
