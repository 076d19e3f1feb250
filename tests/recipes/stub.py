"""Stands in for ``python -m amauta``: the commands of the tests' recipes, without torch.

Each call appends its words to the file that STUB_CALLS names, so that tests count what really ran.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def flags(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found.setdefault(name, [])
            word = value
            if not value:
                continue
        found[name].append(word)
    return found


def make(given: dict[str, list[str]]) -> dict:
    """Write into --out the text of all files of --text, in order; the figure is its length."""
    text = "".join(Path(path).read_text() for path in given.get("text", []))
    out = Path(given["out"][0])
    out.mkdir(parents=True, exist_ok=True)
    (out / "text").write_text(text + given.get("add", [""])[0])
    return {"length": len(text), "score": float(given.get("score", ["0"])[0]), "nested": {"half": len(text) / 2}}


def train(given: dict[str, list[str]]) -> dict:
    """--steps steps of --pause seconds, one checkpoint a step; Ctrl-C saves and exits with 130."""
    out, steps = Path(given["out"][0]), int(given["steps"][0])
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    done = 0
    if "resume" in given:
        done = max(int(path.name[5:]) for path in (out / "checkpoints").iterdir())
    out.mkdir(parents=True, exist_ok=True)
    with (out / "metrics.jsonl").open("a") as metrics, (out / "samples.jsonl").open("a") as samples:
        while done < steps:
            if stop:
                sys.exit(130)
            done += 1
            row = {"step": done, "loss": 4 / done, "heldout_bits_per_byte": 2 + 1 / done, "lr": 0.1 / done}
            metrics.write(json.dumps(row) + "\n")
            samples.write(
                json.dumps({"step": done, "prompt": "Rosa <b>", "text": f"<script>x({done})</script>"}) + "\n"
            )
            metrics.flush()
            (out / "checkpoints" / f"step-{done:06d}").mkdir(parents=True, exist_ok=True)
            time.sleep(float(given.get("pause", ["0"])[0]))
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights").write_text(f"{steps} steps")
    return {"bits_per_byte": 2 + 1 / steps, "before": {"exact": 0.1}, "exact": 0.95}


def main() -> None:
    command, *words = sys.argv[1:]
    with open(os.environ["STUB_CALLS"], "a") as calls:
        calls.write(" ".join([command, *words]) + "\n")
    given = flags(words)
    assert "json" in given
    if command == "fail":
        print("the reason", file=sys.stderr)
        sys.exit(int(given["code"][0]))
    if command == "silent":
        return
    print("a line that is no result")
    result = {"make": make, "train": train}[command](given)
    print(json.dumps(result | ({"passed": False} if "miss" in given else {})))
    sys.exit(1 if "miss" in given else 0)


main()
