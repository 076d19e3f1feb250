"""What the ways of decoding do to a text: diversity, repetition, bits per byte under a larger model, right answers.

stories15m continues beginnings of stories in each way and at each temperature; SmolLM2-135M-Instruct judges what it
wrote, and answers questions of a task itself. Also the width of beams against time and log-prob, and the two defects
of greedy choice by construction. Intervals are 95 %: Student's t over the texts, Wilson's for shares. Both models must
be installed (``amauta models add stories15m``, ``smollm2``). ``python -m benchmarks.pages.decoding`` makes a page of
the result; nothing in it is typed by hand.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch

import amauta
from amauta.decode.generate import generate
from amauta.decode.search.exhaustive import exhaustive
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from amauta.grades import mean_interval, wilson
from amauta.prompt.asking import lay
from amauta.prompt.settings import Prompting
from amauta.prompt.tasks import named

WRITER, JUDGE, TASK = "stories15m", "smollm2", "sentiment"
TEXTS, TOKENS, EXAMPLES, SHOTS = 24, 100, 48, 4
TEMPERATURES = (0.5, 1.0, 1.5)
FIXED = {"greedy": {"temperature": 0.0}, "beams": {"beams": 4}, "contrastive": {"contrastive_alpha": 0.6}}
DRAWN = {
    "ancestral": {}, "top-k": {"top_k": 40}, "top-p": {"top_p": 0.9}, "min-p": {"min_p": 0.1},
    "typical": {"typical_p": 0.9}, "eta": {"eta_cutoff": 0.002}, "top-h": {"top_h": 0.4},
}  # fmt: skip
WIDTHS, WIDE_TEXTS, WIDE_TOKENS = (1, 2, 4, 8, 16), 8, 40
WHO = ("a little dog named Max", "a girl named Lily", "an old king", "a small bird", "a boy named Tim", "a green frog")
HOW = ("Once upon a time, there was {}.", "One sunny day, {} went to the park.", "In the forest lived {}.",
       "It was raining, and {} was sad.")  # fmt: skip


def run() -> dict[str, Any]:
    began = time.perf_counter()
    writer, judge = amauta.load(WRITER), amauta.load(JUDGE)
    ways = {name: (None, settings) for name, settings in FIXED.items()}
    ways |= {f"{name} {t:g}": (t, {**one, "temperature": t}) for (name, one), t in product(DRAWN.items(), TEMPERATURES)}
    return {
        "writer": WRITER, "judge": JUDGE, "task": TASK, "texts": TEXTS, "tokens": TOKENS, "examples": EXAMPLES,
        "ways": {
            name: {"way": name.rsplit(" ", 1)[0], "temperature": t, "settings": settings}
            | written(writer, judge, settings) | answered(judge, settings)
            for name, (t, settings) in ways.items()
        },
        "beams": widths(writer), "wide": {"texts": WIDE_TEXTS, "tokens": WIDE_TOKENS},
        "greedy": {"not the likeliest": trellis(), "repeats itself": loops()},
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "seconds": time.perf_counter() - began,
        "ratios": {}, "share_of_limit": None,
    }  # fmt: skip


def beginnings(count: int) -> list[str]:
    return [how.format(who) for how, who in product(HOW, WHO)][:count]


def written(writer: Any, judge: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """A text for each beginning, and what can be told of them; the judge reads the beginning and is asked about the
    rest."""
    began = time.perf_counter()
    prompts = beginnings(TEXTS)
    made = writer.generate(prompts, max_tokens=TOKENS, **settings)
    seconds = time.perf_counter() - began
    ids = [one.tokens[:-1] if one.finish == "stop" else one.tokens for one in made]
    bits, nats, tokens = judged(judge, prompts, [one.text for one in made])
    return {
        "distinct": {n: mean_interval(known(distinct(row, n) for row in ids)) for n in (1, 2, 3)},
        "distinct_2_each": [distinct(row, 2) for row in ids],
        "distinct_of_all": {n: shared(ids, n) for n in (2, 3)},
        "repeated": mean_interval(known(map(repeated, ids))),
        "repeated_each": list(map(repeated, ids)),
        "bits_per_byte": mean_interval(known(bits)),
        "bits": bits,
        "perplexity": math.exp(nats / tokens),
        "length": mean_interval([float(len(row)) for row in ids]),
        "logprob_per_token": mean_interval([math.fsum(one.logprobs) / len(one.logprobs) for one in made]),
        "seconds": seconds,
        "sample": made[0].text,
    }


def ngrams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def distinct(ids: Sequence[int], n: int) -> float | None:
    """The share of the n-grams of a text that are different ones (Li et al. 2016, arXiv 1510.03055)."""
    found = ngrams(ids, n)
    return len(set(found)) / len(found) if found else None


def repeated(ids: Sequence[int]) -> float | None:
    """The share of the 4-grams of a text that came before in it."""
    found = distinct(ids, 4)
    return None if found is None else 1 - found


def known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def shared(rows: Sequence[Sequence[int]], n: int) -> float:
    """The same over all texts together: texts that are like each other make it small."""
    found = Counter(gram for row in rows for gram in ngrams(row, n))
    return len(found) / found.total()


def judged(judge: Any, prompts: Sequence[str], texts: Sequence[str]) -> tuple[list[float | None], float, int]:
    """Bits per byte of each continuation (None of an empty one), and the nats and the tokens of all of them."""
    bits: list[float | None] = [None] * len(texts)
    nats, tokens = 0.0, 0
    there = [i for i, text in enumerate(texts) if text]
    scored = judge.score([prompts[i] + texts[i] for i in there])
    for i, one in zip(there, scored, strict=True):
        prompt, text = prompts[i], texts[i]
        before, own = len(prompt.encode()), 0.0
        skipped = sum(len(judge.token_bytes(id)) for id in judge.tokenizer.encode(prompt + text)) - sum(
            len(judge.token_bytes(id)) for id in one.tokens
        )  # the bytes of a first token that nothing stands before
        place = skipped
        for id, logprob in zip(one.tokens, one.logprobs, strict=True):
            place += len(judge.token_bytes(id))
            if place > before:
                own, tokens = own - logprob, tokens + 1
        bits[i] = own / math.log(2) / len(text.encode())
        nats += own
    return bits, nats, tokens


def answered(model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """How many of the task's questions are answered right after a few demonstrations."""
    task = named(TASK)
    examples = task.examples(EXAMPLES, 0)
    asked = [lay(model, task, one, Prompting(), shots=SHOTS, room=task.max_tokens) for one in examples]
    made = model.generate([one.ids for one in asked], max_tokens=task.max_tokens, stop=asked[0].stop, **settings)
    right = sum(
        task.grade(example, task.extract(one.text.strip())) for example, one in zip(examples, made, strict=True)
    )
    return {"right": (right / len(examples), *wilson(right, len(examples)))}


def widths(writer: Any) -> dict[int, dict[str, Any]]:
    """Beams of each width on the same beginnings, texts of one length: what they find, and what it costs."""
    found: dict[int, dict[str, Any]] = {}
    prompts = beginnings(WIDE_TEXTS)
    for width in WIDTHS:
        asked = {"beams": width} if width > 1 else {"temperature": 0.0}
        began = time.perf_counter()
        made = writer.generate(prompts, max_tokens=WIDE_TOKENS, min_tokens=WIDE_TOKENS, **asked)
        found[width] = {
            "seconds": time.perf_counter() - began,
            "logprob": mean_interval([math.fsum(one.logprobs) for one in made]),
            "logprobs": [math.fsum(one.logprobs) for one in made],
            "distinct": mean_interval(known(distinct(one.tokens, 2) for one in made)),
            "repeated": mean_interval(known(repeated(one.tokens) for one in made)),
            "texts": len({one.text for one in made}),
        }
    return found


class Chain:
    """A model worked by hand: the next token hangs on the last one alone. ``table`` (V, V) holds probabilities."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.size = table, len(table)

    def next_logprobs(self, prefix: Sequence[int]) -> torch.Tensor:
        return self.table[prefix[-1]].log()


def trellis() -> dict[str, Any]:
    """a goes to b (.5), c (.4), d (.1); b to e (.4), g, h (.3 each); c to f (.9), i (.1): greedy choice takes b."""
    table = torch.eye(9)
    for row, chances in {0: {1: 0.5, 2: 0.4, 3: 0.1}, 1: {4: 0.4, 6: 0.3, 7: 0.3}, 2: {5: 0.9, 8: 0.1}}.items():
        table[row] = torch.tensor([chances.get(id, 0.0) for id in range(9)])
    model, one = Chain(table), Sampling(max_tokens=2, temperature=0.0)
    name = {"token_bytes": lambda id: bytes([ord("a") + id])}
    [greedy] = generate(model, [[0]], one, **name)
    [beams] = search(model, [[0]], one, Search(beams=2, length_penalty=0.0), **name)
    best = exhaustive(model, [0], one, **name)[0]
    texts = {"greedy": greedy, "two beams": beams[0], "the likeliest of all": best}
    return {name: {"text": f"a{one.text}", "prob": math.exp(math.fsum(one.logprobs))} for name, one in texts.items()}


def loops(size: int = 50, texts: int = 24, tokens: int = 200) -> dict[str, Any]:
    """A random chain, whose rows are far from certain: what greedy choice and draws from the model itself repeat.

    Greedy choice does the same thing each time it comes to a token, so after ``size`` tokens at most it goes in a
    circle, whatever the probabilities are.
    """
    random = torch.Generator().manual_seed(0)
    model = Chain(torch.randn(size, size, generator=random).softmax(-1))
    starts = [[i] for i in range(texts)]
    found: dict[str, Any] = {"likeliest": float(model.table.amax(-1).mean()), "tokens": tokens, "size": size}
    for name, temperature in (("greedy", 0.0), ("ancestral", 1.0)):
        made = generate(model, starts, Sampling(max_tokens=tokens, temperature=temperature, seed=1))
        found[name] = {"repeated": mean_interval(known(repeated(one.ids) for one in made))}
        if name == "greedy":
            found["circle"] = mean_interval([float(period(one.ids)) for one in made])
    return found


def period(ids: Sequence[int]) -> int:
    """The length of the circle that a text ends in."""
    return next((n for n in range(1, len(ids)) if ids[-n:] == ids[-2 * n : -n]), len(ids))
