"""A file of process rewards, question by question: whatever stops the work, the same call goes on where it was.

Beside the file stands its progress: with which settings it was begun, which questions are done, and how many bytes of
the file belong to them; what a stop left behind them is cut off.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.config import to_dict
from amauta.metrics import progress
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.thoughts.process_rewards import measure, records
from amauta.prompt.thoughts.settings import ProcessRewards
from amauta.runs import write_atomically

COUNTS = ("rows", "wrong_rows", "rollouts", "generated_tokens", "read_tokens", "calls")


def write_rewards(
    model: Any,
    task: Task,
    examples: Sequence[Example],
    prompting: Prompting,
    settings: ProcessRewards,
    out: Path,
) -> dict[str, Any]:
    """Write the records of all examples to ``out`` (JSON lines) and tell what came of them.

    ``too_hard`` and ``too_easy`` count questions of which no rollout was right, or every one: they have no first wrong
    step. ``spent`` counts those that met a limit. DataError when ``out`` was begun with other settings or questions, or
    holds something else.
    """
    begun = {
        "task": task.name, "model": model.name, "settings": to_dict(settings), "prompting": to_dict(prompting),
    }  # fmt: skip
    done = _begun(out, json.loads(json.dumps(begun)), [each.question for each in examples])
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as file, progress(say("thoughts.measuring"), len(examples)) as bar:
        file.truncate(done["bytes"])
        bar.advance(len(done["questions"]))
        for number in range(len(done["questions"]), len(examples)):
            made, outcome = measure(model, task, examples[number], prompting, settings)
            rows = records(examples[number], made) if () in made.places else []
            file.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
            value = made.places[()].mc if () in made.places else None
            done["questions"].append({
                "question": examples[number].question, "value": value, "spent": outcome.facts["spent"],
                "rows": len(rows), "wrong_rows": sum(row["first_wrong"] is not None for row in rows),
                "rollouts": made.rollouts, "generated_tokens": outcome.generated_tokens,
                "read_tokens": outcome.read_tokens, "calls": outcome.calls, "seconds": outcome.seconds,
            })  # fmt: skip
            done["bytes"] = file.tell()
            write_atomically(_progress(out), json.dumps(done, ensure_ascii=False) + "\n")
            bar.advance(1)
    return summary(done["questions"])


def summary(questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all questions together."""
    return {
        "questions": len(questions),
        "too_hard": sum(each["value"] == 0 for each in questions),
        "too_easy": sum(each["value"] == 1 for each in questions),
        "spent": sum(each["spent"] for each in questions),
        **{name: sum(each[name] for each in questions) for name in COUNTS},
        "seconds": sum(each["seconds"] for each in questions),
    }


def _progress(out: Path) -> Path:
    return out.with_name(f"{out.name}.progress.json")


def _begun(out: Path, begun: dict[str, Any], questions: Sequence[str]) -> dict[str, Any]:
    """What stands there already: ``begun``, ``bytes`` and ``questions``; nothing for a new file."""
    try:
        done = json.loads(_progress(out).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if out.exists() and out.stat().st_size:
            raise DataError("thoughts.not-ours", file=out) from None
        return {"begun": begun, "bytes": 0, "questions": []}
    except ValueError as error:
        raise DataError("thoughts.damaged-progress", file=_progress(out), reason=error) from None
    unlike = [name for name in begun if done["begun"].get(name) != begun[name]]
    known = [each["question"] for each in done["questions"]]
    if known != list(questions[: len(known)]):
        unlike.append("questions")
    if unlike or not out.exists() or out.stat().st_size < done["bytes"]:
        raise DataError("thoughts.other-rewards", file=out, unlike=", ".join(unlike) or "bytes")
    return done
