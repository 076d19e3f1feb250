"""A model with its tokenizer, ready to use: ``amauta.load(name)`` gives one."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.config import build
from amauta.decode.feed import check_ids, context_of
from amauta.decode.sample import Generated, fit, generate, stream
from amauta.decode.settings import Sampling, from_generation_config, prompt_room, spread
from amauta.device import DeviceName, NumberType, pick
from amauta.hub import CONFIG, find_model
from amauta.losses.token import IGNORE, token_logprobs
from amauta.models import exchange
from amauta.models.ngram import MODEL_TYPE as NGRAM
from amauta.models.ngram import NGram
from amauta.runs import aside, raise_if_full, replace_folder, write_atomically
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer

if TYPE_CHECKING:
    from amauta.models.transformer import Transformer

GENERATION_CONFIG = "generation_config.json"
KEPT_FILES = ("card.json",)  # what a model folder holds besides weights, tokenizer and settings
Message = Mapping[str, object]
Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Generation:
    """One continuation. Log-probs are in nats, f32, one a token.

    ``logprobs`` are the model's own; ``sampled_logprobs`` those of the distribution that was drawn from, after the
    filters (0 for greedy choices). ``tokens`` includes the stop token. ``settings`` are those that held, and
    ``sources`` tells for each where it came from: ``argument``, ``generation_config.json`` or ``default``.
    ``dropped_tokens`` and ``dropped_messages`` count what was cut from the prompt. ``tokens_per_second`` counts from
    the call to this answer's last token, the reading of the prompt included.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    sampled_logprobs: list[float]
    finish: str
    prompt_tokens: int
    dropped_tokens: int
    dropped_messages: int
    settings: dict[str, Any]
    sources: dict[str, str]
    tokens_per_second: float

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Scored:
    """The tokens of a text and the log-prob (nats, f32) of each, given ``<|begin|>`` and the tokens before it."""

    tokens: list[int]
    logprobs: list[float]


def load(name: str | Path, *, device: DeviceName = "auto", dtype: NumberType = "auto") -> "LanguageModel":
    """The language model of a run, a model folder or an n-gram folder. ModelError when there is none.

    ``dtype``: the type of the weights; "auto" is f32, in which a row gets in a batch what it gets alone.
    """
    folder = find_model(name)
    inner: Any
    if exchange.read_config(folder).get("model_type") == NGRAM:
        inner = NGram.load(folder)
        if not isinstance(inner.tokenizer, Tokenizer):
            raise ModelError("language_model.no-tokenizer", folder=folder)
        return LanguageModel(inner, inner.tokenizer, folder)
    chosen = pick(device, "f32" if dtype == "auto" else dtype)
    tokenizer = Tokenizer.load(folder)
    inner = exchange.load(folder, device=chosen.device, dtype=chosen.autocast or torch.float32)
    if tokenizer.size > inner.spec.vocabulary:
        raise ModelError(
            "language_model.other-tokenizer", folder=folder, size=tokenizer.size, vocabulary=inner.spec.vocabulary
        )
    return LanguageModel(inner, tokenizer, folder)


class LanguageModel:
    """``model`` (a Transformer or an NGram), its ``tokenizer``, and the ``folder`` that they came from, if any."""

    def __init__(self, model: "Transformer | NGram", tokenizer: Tokenizer, folder: Path | None = None) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.generation_config = _read_json(folder / GENERATION_CONFIG) if folder else {}
        where = str(folder / GENERATION_CONFIG) if folder else GENERATION_CONFIG
        self._defaults = from_generation_config(self.generation_config)
        build(Sampling, self._defaults, where=where)  # a fault there is named there
        self.stop_ids = frozenset({*tokenizer.stops, *_ids(self.generation_config.get("eos_token_id"))})

    @property
    def context(self) -> int | None:
        """The longest input in tokens; None for an n-gram."""
        return context_of(self.model)

    def settings(self, **given: Any) -> tuple[Sampling, dict[str, str]]:
        """The settings that hold, argument > generation_config.json > default, and where each of them came from.

        ``given``: fields of ``decode.settings.Sampling``; None is not given. ConfigError for an unknown or bad one.
        """
        asked = {name: value for name, value in given.items() if value is not None}
        if isinstance(asked.get("stop"), str):
            asked["stop"] = (asked["stop"],)
        found = build(Sampling, self._defaults, asked, where="generate")
        sources = {field.name: "default" for field in dataclasses.fields(Sampling)}
        sources |= dict.fromkeys(self._defaults, GENERATION_CONFIG) | dict.fromkeys(asked, "argument")
        return found, sources

    def generate(
        self,
        prompts: str | Sequence[Prompt],
        *,
        batch: int = 32,
        on_result: Callable[[Generation], object] | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """A continuation of each prompt, in their order; ``batch`` at a time, which changes nothing but the speed.

        A string is read as ``[begin] + encode(prompt)``, a list of ids as it is. ``settings`` are the fields of
        ``decode.settings.Sampling`` (``max_tokens=40, temperature=0, stop="\\n"`` …); prompt i has ``seed + i``.
        """
        rows = [self._ids(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        one, sources = self.settings(**settings)
        each = spread(one, len(rows))
        fit(self.model, rows, each)  # so that a fault is found, and named by its place among all, before any work
        results: dict[int, Generation] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length waste no padding
        for start in range(0, len(order), batch):
            chunk = order[start : start + batch]
            made = generate(
                self.model, [rows[i] for i in chunk], [each[i] for i in chunk],
                stop_ids=self.stop_ids, token_bytes=self.token_bytes,
            )  # fmt: skip
            for i, result in zip(chunk, made, strict=True):
                results[i] = _generation(result, len(rows[i]), each[i], sources)
                if on_result is not None:
                    on_result(results[i])
        return [results[i] for i in range(len(rows))]

    def chat(self, messages: Sequence[Message], **settings: Any) -> Generation:
        """The assistant's next message in a dialogue ([{role, content}]), laid out as in training.

        With ``truncate="left"`` a history that does not fit loses its oldest exchanges, whole; they are counted.
        """
        answer = self.stream(messages, **settings)
        for _ in answer:
            pass
        assert answer.result is not None
        return answer.result

    def stream(self, prompt: Prompt | Sequence[Message], **settings: Any) -> "Stream":
        """The pieces of one answer's text as they come; its ``result`` is there when they have ended.

        ``prompt``: a string or ids to be continued, or a dialogue to be answered.
        """
        one, sources = self.settings(**settings)
        if isinstance(prompt, str) or (len(prompt) and not isinstance(prompt[0], Mapping)):
            return Stream(self, self._ids(prompt), one, sources)  # type: ignore[arg-type]
        kept, dropped = self.fit_messages(prompt, one)  # type: ignore[arg-type]
        return Stream(self, render(self.tokenizer, kept, reply=True).ids, one, sources, dropped)

    def fit_messages(self, messages: Sequence[Message], settings: Sampling) -> tuple[list[Message], int]:
        """The messages that are read, and how many were dropped.

        With ``truncate`` "left": the system message and the newest exchanges stay; the oldest go, a user's message
        together with what answered it, until the dialogue and an answer fit (``prompt_room``). The newest message
        stays in any case: ModelError when it does not fit the context. With "error" nothing is dropped.
        """
        kept = list(messages)
        if settings.truncate == "error" or self.context is None or not kept:
            return kept, 0
        room = prompt_room(settings, self.context)
        head = 1 if kept[0].get("role") == "system" else 0
        while (length := len(render(self.tokenizer, kept, reply=True).ids)) > room:
            users = [i for i, message in enumerate(kept) if message.get("role") == "user" and i > head]
            if not users:
                break
            del kept[head : users[0]]
        if length > self.context:
            raise ModelError("language_model.message-too-long", length=length, context=self.context)
        return kept, len(messages) - len(kept)

    @torch.inference_mode()
    def score(self, texts: str | Sequence[str], *, end: bool = False, batch: int = 16) -> list[Scored]:
        """The log-prob of each token of each text, ``<|begin|>`` standing before it; ``end`` adds ``<|end|>``.

        Raises ModelError for a text that is longer than the context.
        """
        texts = [texts] if isinstance(texts, str) else texts
        tail = [self.tokenizer.end] if end else []
        rows = [[self.tokenizer.begin, *ids, *tail] for ids in self.tokenizer.encode_many(texts)]
        for number, row in enumerate(rows, start=1):
            if self.context and len(row) - 1 > self.context:
                raise ModelError(
                    "language_model.text-too-long",
                    number=number, count=len(rows), length=len(row) - 1, context=self.context,
                )  # fmt: skip
        found: dict[int, list[float]] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch):
            chunk = order[start : start + batch]
            found |= zip(chunk, self._logprobs([rows[i] for i in chunk]), strict=True)
        return [Scored(row[1:], found[i]) for i, row in enumerate(rows)]

    @torch.inference_mode()
    def logits(self, ids: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """(B, T) ids, all rows equally long -> (B, T, V); an n-gram's log-probs are its logits.

        Raises ModelError, with the row: an id out of range, rows of different lengths, a row beyond the context.
        """
        rows = [list(row) for row in (ids.tolist() if isinstance(ids, Tensor) else ids)]
        check_ids(self.model, rows)
        longest = self.context or max(map(len, rows), default=0)
        for number, row in enumerate(rows, start=1):
            if not 0 < len(row) <= longest or len(row) != len(rows[0]):
                raise ModelError(
                    "language_model.bad-row",
                    number=number, count=len(rows), length=len(row), first=len(rows[0]), longest=longest,
                )  # fmt: skip
        if isinstance(self.model, NGram):
            return torch.stack([torch.stack([torch.as_tensor(self.model.next_logprobs(row[: t + 1]))
                                             for t in range(len(row))]) for row in rows])  # fmt: skip
        return self.model.logits(self.model(torch.tensor(rows, device=self.model.device)))

    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """For encoders: this is a decoder, so ModelError."""
        raise ModelError("language_model.no-embedding", folder=self.folder or "-")

    def save(self, folder: str | Path) -> None:
        """Write a model folder that ``load`` and other libraries open: whole or not at all.

        An older model folder there is replaced; ModelError when anything else stands there.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError("language_model.place-taken", folder=folder)
        if isinstance(self.model, NGram):
            self.model.save(folder)
            return
        made = aside(folder)
        made.mkdir(parents=True)
        try:
            self._write(made)
            replace_folder(made, folder)
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            raise_if_full(error, folder)
            raise

    def token_bytes(self, id: int) -> bytes:
        """A token's bytes; none for an id that the model has and the tokenizer has not (a padded vocabulary)."""
        return self.tokenizer.token_bytes(id) if id < self.tokenizer.size else b""

    def _write(self, made: Path) -> None:
        tokenizer = self.tokenizer
        special = {
            "bos_token_id": tokenizer.begin, "eos_token_id": list(tokenizer.stops), "pad_token_id": tokenizer.pad,
        }  # fmt: skip
        exchange.save(self.model, made, special=special)
        tokenizer.save(made, max_length=self.context)
        write_atomically(made / GENERATION_CONFIG, json.dumps(special | self.generation_config, indent=2) + "\n")
        for name in KEPT_FILES:
            if self.folder and (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, made / name)

    def _ids(self, prompt: Prompt) -> list[int]:
        return [self.tokenizer.begin, *self.tokenizer.encode(prompt)] if isinstance(prompt, str) else list(prompt)

    def _logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Of each row's tokens after its first; right-padded, so that nothing sees a pad."""
        if isinstance(self.model, NGram):
            return [self.model.score(row).tolist() for row in rows]
        longest = max(map(len, rows))
        if longest == 1:
            return [[] for _ in rows]
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.model.device)  # (B, T)
        targets = torch.tensor([[*row[1:], *[IGNORE] * (longest - len(row))] for row in rows], device=ids.device)
        was_training = self.model.training
        self.model.eval()
        found = token_logprobs(self.model(ids[:, :-1]), self.model.output_table, targets).tolist()  # (B, T - 1)
        self.model.train(was_training)
        return [values[: len(row) - 1] for values, row in zip(found, rows, strict=True)]


class Stream:
    """Iterate for the pieces of text; then ``result`` is the Generation. ``close`` stops early, with what there is."""

    def __init__(
        self,
        owner: LanguageModel,
        ids: list[int],
        settings: Sampling,
        sources: dict[str, str],
        dropped_messages: int | None = None,  # None: no dialogue
    ) -> None:
        # a dialogue is cut by whole messages only, never inside one
        fitting = settings if dropped_messages is None else dataclasses.replace(settings, truncate="error")
        self._dropped_messages = dropped_messages or 0
        self.result: Generation | None = None
        self._settings, self._sources, self._length = settings, sources, len(ids)
        [fitted], [dropped] = fit(owner.model, [ids], [fitting])
        self._made = Generated(dropped=dropped)
        self._began = time.perf_counter()
        self._steps = stream(
            owner.model, [fitted], [settings], stop_ids=owner.stop_ids, token_bytes=owner.token_bytes
        )  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        for step in self._steps:
            made = self._made
            made.ids.append(step.id)
            made.logprobs.append(step.logprob)
            made.sampled_logprobs.append(step.sampled_logprob)
            made.text += step.text
            made.seconds = time.perf_counter() - self._began
            if step.finish:
                made.finish = step.finish
                self._end()
            if step.text:
                yield step.text

    def close(self) -> None:
        """Stop now; ``result`` holds what was generated, with ``finish`` "cancelled" when it was not at its end."""
        self._steps.close()  # type: ignore[attr-defined]
        if self.result is None:
            self._made.finish = "cancelled"
            self._end()

    def _end(self) -> None:
        self.result = _generation(self._made, self._length, self._settings, self._sources, self._dropped_messages)


def _generation(
    made: Generated, prompt_tokens: int, settings: Sampling, sources: dict[str, str], dropped_messages: int = 0
) -> Generation:
    return Generation(
        text=made.text,
        tokens=made.ids,
        logprobs=made.logprobs,
        sampled_logprobs=made.sampled_logprobs,
        finish=made.finish,
        prompt_tokens=prompt_tokens - made.dropped,
        dropped_tokens=made.dropped,
        dropped_messages=dropped_messages,
        settings=dataclasses.asdict(settings),
        sources=dict(sources),
        tokens_per_second=len(made.ids) / made.seconds if made.seconds else 0.0,
    )


def _ids(value: int | Sequence[int] | None) -> list[int]:
    """``eos_token_id`` may be one id or a list."""
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} at the top")
        return found
    except ValueError as error:
        raise ModelError("language_model.bad-json", path=path, reason=error) from None
