"""What a constraint costs a decoding step of SmolLM2-135M: JSON of a schema, a regular expression and CSV rows.

The same text is fed token by token twice, free and constrained, step by step in turn, so that both see the same load;
a step is the model's pass, the choice of the likeliest token and, constrained, the mask before it and the token taken
after it. The cost is what the constrained step takes more, as a share of the free one, by the clock around what the
constraint does and by the difference of whole steps. Also printed: the mask alone, what is made once (for the
vocabulary, for a grammar), and the tokens of the text that can be drafted without the model (``Constraint.forced``).
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from typing import Any

import torch

import amauta
from amauta.decode.constrain.constraint import Constrainer, Constraint, constrained
from amauta.decode.constrain.settings import Constraining
from amauta.decode.feed import feed_for, vocabulary_of

GOAL = 0.10  # of a step
ROUNDS = 3
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 40},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["street", "zip"],
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
PERSON = {
    "name": "Rosa Quispe",
    "age": 31,
    "tags": ["red", "blue"],
    "address": {"street": "Calle Sol 12, second floor", "zip": "08001"},
}
FORMS = {
    "json": (Constraining(schema=json.dumps(SCHEMA)), json.dumps(PERSON)),
    "regex": (Constraining(regex=r"(\w+ )+\w+\. Call \+?[0-9]{2,3}(-[0-9]{3}){3}\."),
              "The weaver sells wool and potatoes at the market on Sundays. Call +51-984-123-456."),
    "csv": (Constraining(csv_columns="name:string,age:integer,city:Cusco|Puno|Lima", csv_rows=4),
            "name,age,city\nRosa,31,Cusco\nLuis,28,Puno\n\"Ana, the weaver\",45,Lima\nJosé,19,Cusco"),
}  # fmt: skip


def run() -> dict[str, Any]:
    model = amauta.load("smollm2", dtype="bf16")
    size = vocabulary_of(model.model)
    assert size is not None
    maker = Constrainer(model.tokenizer, size, model.stop_ids)
    once = {"vocabulary_ms": 1e3 * seconds(partial(maker.start, [Constraining(regex="a")]))[0]}
    costs: dict[str, Any] = {}
    for name, (form, text) in FORMS.items():
        once[f"{name}_grammar_ms"] = 1e3 * seconds(partial(maker.start, [form]))[0]
        for rows in (1, 16):
            costs[f"{name} x{rows}"] = compare(model, maker, form, text, rows)
    worst = max(one["cost"] for one in costs.values())
    return {
        **costs, "once": once, "drafted": drafted(model, maker), "goal": GOAL, "worst": worst, "passed": worst < GOAL,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def compare(model: Any, maker: Constrainer, form: Constraining, text: str, rows: int) -> dict[str, float]:
    """Milliseconds of a step, free and constrained, and the constraint's share; over all tokens and rounds."""
    ids = [*model.tokenizer.encode(text), min(model.stop_ids)]
    prompt = model.tokenizer.prompt("Write it down: ")
    free: list[float] = []
    bound: list[float] = []
    added: list[float] = []
    masks: list[float] = []
    for _ in range(ROUNDS):
        feeds = [feed_for(model.model, rows, len(prompt) + len(ids)) for _ in range(2)]
        made = [one for one in maker.start([form] * rows) if one is not None]
        with torch.inference_mode():
            logits = [feed.start([prompt] * rows) for feed in feeds]
            for place, id in enumerate(ids):
                masks.append(seconds(made[0].copy().mask)[0])
                for which in (0, 1) if place % 2 else (1, 0):
                    began = time.perf_counter()
                    if which:
                        before, (now, _) = seconds(partial(constrained, logits[1], made))
                        after, _ = seconds(partial(take, made, id))
                        added.append(before + after)
                    else:
                        now = logits[0]
                    now.argmax(-1).tolist()
                    logits[which] = feeds[which].next(list(range(rows)), [id] * rows)
                    (bound if which else free).append(time.perf_counter() - began)
    middle = statistics.median(free)
    return {
        "free_ms": middle * 1e3,
        "constrained_ms": statistics.median(bound) * 1e3,
        "added_us": statistics.median(added) * 1e6,
        "cost": statistics.median(added) / middle,
        "cost_of_the_mean": statistics.mean(added) / statistics.mean(free),
        "cost_by_whole_steps": statistics.median(map(truediv, bound, free)) - 1,
        "mask_us": statistics.median(masks) * 1e6,
        "slowest_mask_us": max(masks) * 1e6,
    }


def take(constraints: list[Constraint], id: int) -> None:
    for one in constraints:
        one.take(id)


def drafted(model: Any, maker: Constrainer) -> dict[str, float]:
    """The share of the JSON's tokens that ``forced`` gives right: with free white space, and without any."""
    found: dict[str, float] = {}
    for name, more, text in (
        ("free white space", {}, json.dumps(PERSON)),
        ("compact", {"x-guidance": {"whitespace_flexible": False}}, json.dumps(PERSON, separators=(",", ":"))),
    ):
        [constraint] = maker.start([Constraining(schema=json.dumps({**more, **SCHEMA}))])
        assert constraint is not None
        ids, right, place = model.tokenizer.encode(text), 0, 0
        while place < len(ids):
            matching = 0
            for draft, id in zip(constraint.forced(), ids[place:], strict=False):
                if draft != id:
                    break
                matching += 1
            for id in ids[place : place + matching + 1]:  # what matched, and the model's own next one
                constraint.take(id)
            right, place = right + matching, place + matching + 1
        found[name] = right / len(ids)
    return found


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
