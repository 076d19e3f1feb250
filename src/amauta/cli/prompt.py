"""Ask a model the questions of a task: methods of prompting, compared, shown and recorded."""

from typing import Any

from amauta.cli._door import Group
from amauta.prompt.settings import Ask, ComparePrompts, LabelExperiment, PromptRecords, RunPrompt, ShowPrompt
from amauta.prompt.thoughts.command import PromptRewards

app = Group("prompt")


def _show_run(result: dict[str, Any]) -> str:
    from amauta.base.messages import say

    return f"{_table([result])}\n\n{say('prompt.figures')}"


@app.command("run", RunPrompt, show=_show_run)
def run(settings: RunPrompt) -> dict[str, Any]:
    """Ask a model the examples of a task by one method, and grade the answers.

    Tasks: addition, arithmetic, game24, sentiment, sorting, or a file with question/answer, text/label, Body/Question/
    Answer (SVAMP) or question/passage/answer (BoolQ). With --out every result is kept, and the same call goes on where
    it was stopped.

    Examples:
      amauta prompt run arithmetic --method cot --model smollm2 --examples 10 --json
      amauta prompt run arithmetic --method self-consistency --samples 10 --shots 4 --model smollm2 --tree votes.html
      amauta prompt run gsm8k.jsonl --method cot --shots 8 --model smollm2 --examples 50 --seeds 5 --out cot.jsonl
      amauta prompt run sentiment --method few-shot --form json --constrain --model smollm2
    """
    from amauta.prompt.run import run as work
    from amauta.prompt.run import task_of

    task = task_of(settings)
    return work(_model(settings), task, settings, method=settings.method, out=settings.out, tree=settings.tree)


def _show_prompts(result: dict[str, Any]) -> str:
    from amauta.base.messages import say

    parts: list[str] = []
    for number, prompt in enumerate(result["prompts"], start=1):
        head = say("prompt.shown", number=number, count=len(result["prompts"]), tokens=prompt["tokens"])
        parts.append(f"{head}\n{prompt['text']}\n\n{' '.join(map(repr, prompt['pieces']))}")
    facts = {name: value for name, value in result.items() if name != "prompts"}
    return "\n\n".join([*parts, "\n".join(f"{name}: {value}" for name, value in facts.items())])


@app.command("show", ShowPrompt, show=_show_prompts)
def show(settings: ShowPrompt) -> dict[str, Any]:
    """Show the exact prompts of one example: their text, their tokens, and what was dropped to make them fit.

    Nothing is generated; what follows an answer is shown as if the answer were empty.

    Examples:
      amauta prompt show sentiment --method few-shot --shots 2 --layout plain --model smollm2
      amauta prompt show arithmetic --method cot --model smollm2 --json
    """
    from amauta.prompt.run import task_of
    from amauta.prompt.show import shown

    task = task_of(settings)
    return shown(_model(settings), task, settings)


def _show_labels(result: dict[str, Any]) -> str:
    from amauta.base.messages import say

    heads = [say("prompt.condition"), say("prompt.accuracy"), "95 %", "macro-F1", "95 %", say("prompt.dropped")]
    rows = [
        [name, _share(one["accuracy"]), _interval(one, "accuracy"), f"{one['macro_f1']:.3f}",
         _interval(one, "macro_f1"), str(one["dropped"])]
        for name, one in result["conditions"].items()
    ]  # fmt: skip
    told = [_aligned([heads, *rows])]
    if "gold_minus_random" in result:
        difference = result["gold_minus_random"]
        low, high = (_points(difference[name]) for name in ("low", "high"))
        told.append(say("prompt.difference", points=_points(difference["accuracy"]), low=low, high=high))
    return "\n\n".join([*told, result["caveat"]])


@app.command("labels", LabelExperiment, show=_show_labels)
def labels(settings: LabelExperiment) -> dict[str, Any]:
    """Find out what the labels of demonstrations are good for: right ones, random ones, or no demonstrations.

    Intervals are 95 %, over the draws of demonstrations. Label probabilities may be calibrated by inputs without
    content. Prompts are plain text.

    Examples:
      amauta prompt labels sentiment --model smollm2
      amauta prompt labels sentiment --model smollm2 --conditions gold random labels-only --correct 75,50,25,0 --json
      amauta prompt labels reviews.jsonl --model smollm2 --shots 8 --inference channel --out predictions.jsonl
    """
    from amauta.prompt.labels import experiment
    from amauta.prompt.run import task_of

    task = task_of(settings)
    return experiment(_model(settings), task, settings)


def _show_compared(result: dict[str, Any]) -> str:
    from amauta.base.messages import say

    return f"{_table(result['methods'])}\n\n{say('prompt.figures')}"


@app.command("compare", ComparePrompts, show=_show_compared)
def compare(settings: ComparePrompts) -> dict[str, Any]:
    """Ask a model the same examples by several methods: accuracy, tokens, calls and seconds side by side.

    Examples:
      amauta prompt compare arithmetic --methods direct,few-shot,cot --model smollm2 --examples 20
      amauta prompt compare game24 --methods direct,cot,tot,mcts --model smollm2 --examples 5 --out runs/game24 --json
    """
    from amauta.base.errors import ConfigError
    from amauta.base.names import one_of
    from amauta.prompt.methods import METHODS
    from amauta.prompt.run import run as work
    from amauta.prompt.run import task_of

    methods = [name.strip() for word in settings.methods for name in word.split(",") if name.strip()]
    for name in methods:  # before any work
        if name not in METHODS:
            raise ConfigError("prompt.unknown-method", name=name, hint=one_of(name, METHODS))
    task = task_of(settings)
    model = _model(settings)
    folder = settings.out
    return {
        "task": task.name,
        "model": model.name,
        "methods": [
            work(model, task, settings, method=name, out=None if folder is None else folder / f"{name}.jsonl")
            for name in methods
        ],
    }


@app.command("records", PromptRecords)
def records(settings: PromptRecords) -> dict[str, Any]:
    """Write records of a task to train on, with scratchpads; none of them is among the examples that are asked.

    After amauta sft on them the model is asked with --method scratchpad --shots 0 --layout chat.

    Examples:
      amauta prompt records addition --out addition.jsonl --count 20000
      amauta prompt records addition --out answers.jsonl --no-steps
    """
    import json

    from amauta.base.errors import ConfigError
    from amauta.prompt.scratchpad import record
    from amauta.prompt.tasks import named, names
    from amauta.runs import write_atomically

    task = named(settings.task)
    if task.training is None:
        able = ", ".join(name for name in names() if named(name).training is not None)
        raise ConfigError("prompt.not-learnt", task=task.name, able=able)
    made = [record(task, example, steps=settings.steps) for example in task.training(settings.count, settings.seed)]
    write_atomically(settings.out, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made))
    return {"records": len(made), "asked_for": settings.count, "out": str(settings.out)}


@app.command("rewards", PromptRewards)
def rewards(settings: PromptRewards) -> dict[str, Any]:
    """Measure which steps of a model's solutions are right, and write them as process rewards (OmegaPRM).

    From each state solutions are sampled: a step is wrong when none of them succeeds any more. The records have the
    shape that TRL reads for stepwise supervision: prompt, completions, labels.

    Examples:
      amauta prompt rewards game24 --model smollm2 --examples 10 --out steps.jsonl
      amauta prompt rewards gsm8k.jsonl --model smollm2 --rollouts 4 --most-tokens 20000 --json
    """
    from amauta.prompt.run import task_of
    from amauta.prompt.thoughts.rewards_file import write_rewards

    task = task_of(settings)
    examples = task.examples(settings.examples, settings.seed)
    counts = write_rewards(_model(settings), task, examples, settings.prompting, settings.rewards, settings.out)
    return {**counts, "out": str(settings.out)}


def _model(settings: Ask) -> Any:
    from amauta.language_model import load

    return load(settings.model, device=settings.device, dtype=settings.dtype)


def _table(results: list[dict[str, Any]]) -> str:
    """A line a method."""
    from amauta.base.messages import say

    heads = [
        say("prompt.method"), say("prompt.accuracy"), "95 %", say("prompt.generated"), say("prompt.read"),
        say("prompt.calls"), say("prompt.seconds"), say("prompt.no-answer"), say("prompt.dropped"),
    ]  # fmt: skip
    rows = [
        [one["method"], _share(one["accuracy"]), _interval(one, "accuracy"), f"{one['generated_tokens']:.1f}",
         f"{one['read_tokens']:.1f}", f"{one['calls']:.1f}", f"{one['seconds']:.2f}", _share(one["no_answer"]),
         str(one["dropped"])]
        for one in results
    ]  # fmt: skip
    return _aligned([heads, *rows])


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _interval(figures: dict[str, Any], name: str) -> str:
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    return "–" if low is None else f"{low:.3f} … {high:.3f}"


def _aligned(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first of them the heads."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not place else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip
