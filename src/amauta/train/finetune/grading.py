"""What a fine-tuned model answers to held-out records, and how right that is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from amauta.data.buckets import Laid, TaskBatch, batch_of
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import Device
from amauta.grades import grades
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer, piece_bytes
from amauta.train.finetune.layout import Layout, Prepared
from amauta.train.finetune.steps import answers, best_spans, written_logprobs
from amauta.train.loop import Step, share_totals


class Grader:
    """Called with a model, it gives the figures of the held-out examples: the loss and each measure."""

    def __init__(
        self,
        layout: Layout,
        prepared: Prepared,
        tokenizer: AnyTokenizer,
        measures: Sequence[str],
        step: Step,
        device: Device,
        *,
        rows: int,
        start: int | None,
        threshold: float | None,
    ) -> None:
        self.layout, self.prepared, self.tokenizer, self.measures = layout, prepared, tokenizer, measures
        self.step, self.device, self.rows, self.start, self.threshold = step, device, rows, start, threshold

    def __call__(self, model: Transformer) -> dict[str, float]:
        given, loss = self.given(model)
        right = [self._right(n) for n in range(len(given))]
        found = {"heldout_loss": loss}
        kind, names = self.layout.kind, list(self.measures)
        if kind in ("span", "text") and "accuracy" in names:
            names.remove("accuracy")
            hits = [text.strip() in [one.strip() for one in ones] for ones, text in zip(right, given, strict=True)]
            found["accuracy"] = sum(hits) / len(hits)
        found |= grades(names, right, given, classes=self.layout.classes)
        if self.layout.settings.manner == "t5" and kind == "classification":
            found["outside"] = float(given.count(-1))  # answers that are no label
        if kind == "text" and any(example.choices for example in self.prepared.examples):
            found |= self._ranked(model)
        return found

    @torch.inference_mode()
    def given(self, model: Transformer) -> tuple[list[Any], float]:
        """The answer to each example, in their order, and the mean loss."""
        found: dict[int, Any] = {}
        total, count = 0.0, 0
        for numbers, batch in self._batches(self.prepared.laid):
            with self.device.context():
                loss, n, _ = self.step(model, batch)
                said = self._answers(model, batch, numbers)
            total, count = total + float(loss), count + n
            found |= dict(zip(numbers, said, strict=True))
        return [found[n] for n in range(len(found))], total / max(1, count)

    def _batches(self, laid: Sequence[Laid]) -> Iterator[tuple[list[int], TaskBatch]]:
        order = sorted(range(len(laid)), key=lambda n: laid[n].length)
        for first in range(0, len(order), self.rows):
            numbers = order[first : first + self.rows]
            see_prompt = self.layout.settings.see_prompt
            batch = batch_of([laid[n] for n in numbers], start=self.start, see_prompt=see_prompt)
            share_totals([batch])
            yield numbers, batch.to(self.device.device)  # type: ignore[misc]  # to() keeps the class

    def _answers(self, model: Transformer, batch: TaskBatch, numbers: list[int]) -> list[Any]:
        if self.layout.settings.rank or self.layout.settings.see_prompt:
            return self._likeliest(model, numbers)
        if self.layout.settings.manner == "t5":
            return [self.layout.understood(text) for text in self._write(model, numbers)]
        if self.layout.kind != "span":
            return answers(model, batch, self.layout.kind)
        passages = [self.prepared.passages[n] for n in numbers]
        spans = best_spans(
            model, batch, [one.first for one in passages], [len(one.characters) for one in passages],
            self.layout.settings.answer_tokens,
        )  # fmt: skip
        texts: list[str] = []
        for passage, (i, j, score, nothing) in zip(passages, spans, strict=True):
            a, b = passage.characters[i - passage.first][0], passage.characters[j - passage.first][1]
            silent = self.threshold is not None and nothing > score + self.threshold
            texts.append("" if silent else passage.text[a:b])
        return texts

    def _write(self, model: Transformer, numbers: list[int]) -> list[str]:
        """What the model writes greedily after, or about, each example's row."""
        rows = [self.prepared.laid[n].rows[0] for n in numbers]
        sampling = Sampling(max_tokens=self.layout.settings.answer_tokens, temperature=0.0)
        prompts, sources = (rows, None) if self.start is None else ([[self.start]] * len(rows), rows)
        found = generate(
            model, prompts, sampling, stop_ids=self.tokenizer.stops,
            token_bytes=partial(piece_bytes, self.tokenizer), sources=sources,
        )  # fmt: skip
        return [one.text for one in found]

    def _likeliest(self, model: Transformer, numbers: list[int]) -> list[int]:
        """The class of each example whose name is the most probable to be written."""
        names, end = self.layout.names, [] if self.tokenizer.end is None else [self.tokenizer.end]
        rows = [replace(self.prepared.laid[n], written=[*self.tokenizer.encode(name), *end]) for n in numbers
                for name in names]  # fmt: skip
        sums = np.zeros(len(rows))
        for places, batch in self._batches(rows):
            sums[places] = written_logprobs(model, batch, self.device)
        return sums.reshape(len(numbers), len(names)).argmax(1).tolist()

    def _right(self, n: int) -> Any:
        example, kind = self.prepared.examples[n], self.layout.kind
        if kind == "span":
            return example.answers
        return [example.completion] if kind == "text" else example.label

    @torch.inference_mode()
    def _ranked(self, model: Transformer) -> dict[str, float]:
        """Rank classification (Brown et al. 2020, Sanh et al. 2022, arXiv 2110.08207): the choice whose tokens together
        are the most probable after the prompt is the answer."""
        rows: list[Laid] = []
        owner: list[tuple[int, str]] = []
        end = [] if self.tokenizer.end is None else [self.tokenizer.end]
        for n, example in enumerate(self.prepared.examples):
            for choice in example.choices:
                laid = self.prepared.laid[n]
                rows.append(Laid(laid.rows, laid.segments, written=[*self.tokenizer.encode(choice), *end]))
                owner.append((n, choice))
        best: dict[int, tuple[float, str]] = {}
        for numbers, batch in self._batches(rows):
            with self.device.context():
                sums = written_logprobs(model, batch, self.device)
            for k, total in zip(numbers, sums, strict=True):
                n, choice = owner[k]
                best[n] = max(best.get(n, (float("-inf"), "")), (total, choice))
        by_template: dict[str, list[bool]] = {}
        for n, (_, choice) in best.items():
            example = self.prepared.examples[n]
            hit = choice.strip() == example.completion.strip()
            by_template.setdefault(example.columns.get("template", ""), []).append(hit)
        every = [hit for hits in by_template.values() for hit in hits]
        found = {"rank_accuracy": sum(every) / len(every)}
        if len(by_template) > 1:
            low, middle, high = np.percentile([sum(hits) / len(hits) for hits in by_template.values()], (25, 50, 75))
            found |= {"rank_median": float(middle), "rank_iqr": float(high - low), "prompts": float(len(by_template))}
        return found
