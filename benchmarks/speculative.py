"""Speculative decoding of SmolLM2-135M-Instruct, greedy: the same tokens in fewer passes, against plain decoding and
against prompt lookup in transformers, in the same type.

Two tasks: ``copy`` (repeat a text: guesses hold) and ``free`` (write something new: they rarely do, which shows what
guessing costs). Contestants alternate; a ratio is taken within each round. The limit is the number of tokens that a
pass gives: what guessing and checking that cost nothing would reach.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from amauta.language_model import Generation
from amauta.tokenize.chat import render
from benchmarks._peers import alternating, ours, theirs

TOKENS, ROUNDS = 48, 3
TEXT = (
    "Rosa is a weaver in the market of Pisac. Every morning she carries the wool from the hill to the town, washes it "
    "in the river and hangs it on the wall behind the church. At noon her brother Luis comes with bread and olives."
)
TASKS = {"copy": f"Repeat this text word by word:\n\n{TEXT}", "free": "Write a short story about a llama and the sea."}
DRAFTS: dict[str, dict[str, Any]] = {
    "lookup 4": {"draft": "lookup", "draft_tokens": 4},
    "lookup 8": {"draft": "lookup", "draft_tokens": 8},
    "lookup adapting": {"draft": "lookup", "draft_tokens": 4, "draft_adapt": True},
    "ngram 4": {"draft": "ngram", "draft_tokens": 4},
    "ngram adapting": {"draft": "ngram", "draft_tokens": 4, "draft_adapt": True},
}
PEER = "transformers lookup 4"


def run() -> dict[str, Any]:
    found = {f"{task} {dtype}": contest(task, dtype) for dtype in ("bf16", "f32") for task in TASKS}
    guessed = {f"{name} {draft}": one for name, drafts in found.items() for draft, one in drafts["drafts"].items()}
    return {
        "contests": found,
        "ratios": {name: one["ratio"] for name, one in guessed.items()}
        | {f"{name} lookup 4 over {PEER}": one["over_peer"] for name, one in found.items()},
        "share_of_limit": {name: one["ratio"] / one["tokens_per_pass"] for name, one in guessed.items()},
    }


def contest(task: str, dtype: str) -> dict[str, Any]:
    """Tokens/s of plain decoding, of each draft, with how its guesses fared, and of the peer."""
    model = ours("smollm2", dtype)
    peer = theirs(model, dtype)
    prompt = render(model.tokenizer, [{"role": "user", "content": TASKS[task]}], reply=True).ids
    ids = torch.tensor([prompt])
    length = {"max_tokens": TOKENS, "min_tokens": TOKENS}
    made: dict[str, Generation] = {}

    def write(name: str, **given: Any) -> Callable[[], None]:
        def work() -> None:
            [made[name]] = model.generate([prompt], temperature=0, **length, **given)

        return work

    @torch.inference_mode()
    def transformers() -> None:
        peer.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False,
            pad_token_id=0, prompt_lookup_num_tokens=4,
        )  # fmt: skip

    works = {"plain": write("plain"), **{name: write(name, **given) for name, given in DRAFTS.items()}}
    seconds = alternating(works | {PEER: transformers}, ROUNDS)
    return {
        "prompt_tokens": len(prompt),
        "tokens_per_second": {name: TOKENS / statistics.median(times) for name, times in seconds.items()},
        "over_peer": _ratio(seconds[PEER], seconds["lookup 4"]),
        "drafts": {
            name: {
                "ratio": _ratio(seconds["plain"], seconds[name]),
                "same_tokens": made[name].tokens == made["plain"].tokens,
                **(made[name].drafts or {}),
            }
            for name in DRAFTS
        },
    }


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
