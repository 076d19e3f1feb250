"""An iteration of GRPO, 8 prompts × 8 answers × 64 tokens, against trl's GRPOTrainer: same weights, same settings.

Both sample at temperature 1, score the answers by the same function, compute the log-probs of a frozen reference, and
take one AdamW step in four micro-batches of 16 answers. They take turns, an iteration each, and what is compared is
written tokens a second, since two samplers do not write the same answers. ``sampler_gap``: the mean difference, in nats
a token, between the log-probs under which ours drew and those that it learnt from.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amauta import config
from amauta.device import pick
from amauta.hub import find_model
from amauta.models.exchange.folder import write_model
from amauta.models.transformer import Transformer
from amauta.optim.groups import Optimizers
from amauta.runs import Run
from amauta.tokenize.train import train_bpe
from amauta.train.loop import _one_step, share_totals
from amauta.train.policy.run import assemble
from amauta.train.policy.settings import Policy
from benchmarks._peers import DEMO

PROMPTS, SAMPLES, TOKENS, ROWS, ROUNDS = 8, 8, 64, 16, 3
BETA, RATE = 0.04, 1e-6
QUESTIONS = (
    "Describe how bread is made, step by step.", "Tell a story about a fox and a river.",
    "Explain why the sky is blue to a child.", "What should one pack for a week in the mountains?",
    "Compare cats and dogs as companions.", "Write a letter to a friend who moved away.",
    "How does a bicycle stay upright?", "Give advice to someone who learns to cook.",
)  # fmt: skip
REWARD = """
def worth(prompt, completion, record):
    return completion.count("e") / (1 + len(completion))
"""


def run() -> dict[str, Any]:
    dtypes = ["f32"] + (["bf16"] if pick("cpu", "auto").autocast else [])
    found: dict[str, Any] = {}
    for name in ("demo", "smollm2"):
        for dtype in dtypes:
            with tempfile.TemporaryDirectory() as folder:
                found[f"{name} {dtype}"] = compared(name, dtype, Path(folder))
    return {
        "iterations": found, "ratios": {name: one["ratio"] for name, one in found.items()}, "share_of_limit": None,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def compared(name: str, dtype: str, folder: Path) -> dict[str, Any]:
    model = demo(folder / "model") if name == "demo" else opened(folder / "model")
    ours = Ours(str(model), dtype, folder)
    speeds: dict[str, list[float]] = {"amauta": [], "trl": []}
    gaps: list[float] = []

    def turn() -> None:
        began = time.perf_counter()
        tokens, gap = ours.iteration()
        speeds["amauta"].append(tokens / (time.perf_counter() - began))
        gaps.append(gap)

    turn()
    speeds["trl"] = theirs(str(model), dtype, folder, turn)
    ratios = [a / b for a, b in zip(speeds["amauta"][2:], speeds["trl"][1:], strict=True)]  # the first are warming up
    return {
        "ratio": statistics.median(ratios), "ratios": ratios, "sampler_gap": statistics.fmean(gaps),
        "written_tokens_per_second": {who: statistics.median(each[1:]) for who, each in speeds.items()},
    }  # fmt: skip


def demo(folder: Path) -> Path:
    """A model of the demo's size with random weights, and a tokenizer with a chat template."""
    tokenizer = train_bpe([f"{question} {question[::-1]}" for question in QUESTIONS] * 3, 600, allow_smaller=True)
    folder.mkdir()
    write_model(Transformer.create(replace(DEMO, vocabulary=tokenizer.size), 0), tokenizer, folder)
    return folder


def opened(folder: Path) -> Path:
    """SmolLM2 as a folder, which both open."""
    from amauta.models.exchange.opening import needed_tokenizer, read_weights

    found = find_model("smollm2")
    tokenizer = needed_tokenizer(found, chat=True)
    folder.mkdir()
    write_model(read_weights(found, tokenizer), tokenizer, folder)
    return folder


class Ours:
    """The loop's own step over the stream of answers."""

    def __init__(self, model: str, dtype: str, folder: Path) -> None:
        (folder / "worth.py").write_text(REWARD, encoding="utf-8")
        lines = "".join(f'{{"prompt": "{question}"}}\n' for question in QUESTIONS)
        (folder / "asked.jsonl").write_text(lines, encoding="utf-8")
        values = {
            "model": model, "data": [str(folder / "asked.jsonl")], "out": str(folder / "run"), "method": "grpo",
            "reward": [f"{folder / 'worth.py'}:worth"], "batch": PROMPTS, "samples": SAMPLES, "max_tokens": TOKENS,
            "algorithm": {"beta": BETA}, "on_trouble": "warn", "length": 256, "optim": {"lr": RATE},
            "loop": {"rows": ROWS, "device": "cpu", "dtype": dtype, "compile": False,
                     "threads": torch.get_num_threads()},
        }  # fmt: skip
        self.settings = config.build(Policy, values)
        made = assemble(self.settings, Run(folder / "run"))
        self.work, self.micro = made.work, made.loop.accumulate
        self.optimizers = Optimizers(made.work.model, self.settings.optim, splits=made.work.splits)
        self.step = 0

    def iteration(self) -> tuple[int, float]:
        """Tokens that were written and learnt from, and the gap."""
        batches = [next(self.work.stream) for _ in range(self.micro)]
        totals = share_totals(batches)
        told = _one_step(self.work.model, self.work, self.optimizers, batches, 0, self.step, 1.0, 1.0)
        self.step += 1
        return totals["actions"], told["sampler_gap"]


def theirs(model: str, dtype: str, folder: Path, turn: Any) -> list[float]:
    """Written tokens a second of each of their iterations; after each of them ours has its ``turn``."""
    import datasets
    import transformers
    import trl

    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    written: list[int] = []
    speeds: list[float] = []

    def worth(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        written.append(sum(map(len, completion_ids)))
        texts = [one[0]["content"] for one in completions]
        return [text.count("e") / (1 + len(text)) for text in texts]

    class Turns(transformers.TrainerCallback):
        began = 0.0

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            speeds.append(written[-1] / (time.perf_counter() - self.began))
            turn()

    rows = [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS]
    settings = trl.GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=ROWS, num_generations=SAMPLES,
        gradient_accumulation_steps=PROMPTS * SAMPLES // ROWS, max_completion_length=TOKENS, beta=BETA,
        learning_rate=RATE, max_steps=ROUNDS + 1, temperature=1.0, use_cpu=True, bf16=dtype == "bf16", report_to=[],
        logging_strategy="no", save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
        model_init_kwargs={"dtype": torch.float32},
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=worth, args=settings, train_dataset=datasets.Dataset.from_list(rows),
        callbacks=[Turns()],
    )  # fmt: skip
    trainer.train()
    return speeds
