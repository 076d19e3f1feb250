"""``LanguageModel``: generate, chat, score, logits, hidden, embed, save."""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.constrain.constraint import Constrainer
from amauta.decode.feed import check_ids, context_of, padded, vocabulary_of
from amauta.decode.settings import Sampling, from_generation_config, prompt_room, settled
from amauta.hub import Found
from amauta.language_model.adapters import add, names, using
from amauta.language_model.answer import Generation, Read, Stream
from amauta.language_model.asked import Asked, asked
from amauta.language_model.parts import opened
from amauta.language_model.rows import PADDING, buckets, checked, packed_states, packs
from amauta.language_model.write import write
from amauta.losses.token import IGNORE, token_logprobs
from amauta.models.adapters import switch
from amauta.models.exchange.folder import GENERATION, check_place, ids_of, read_generation, write_model
from amauta.models.exchange.opening import generation_of
from amauta.models.ngram import NGram
from amauta.runs import CARD, PROBES, write_folder
from amauta.tokenize.chat import render
from amauta.tokenize.either import AnyTokenizer, piece_bytes

if TYPE_CHECKING:
    from amauta.models.transformer import Transformer

KEPT_FILES = (CARD, PROBES)  # what a model folder holds besides weights, tokenizer and settings
Message = Mapping[str, object]
Prompt = str | Sequence[int]
Rows = Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True)
class Scored:
    """The tokens of a text and the log-prob (nats, f32) of each, given those before it.

    The first is given the tokenizer's begin token; a tokenizer without one scores from the second token on.
    """

    tokens: list[int]
    logprobs: list[float]


class LanguageModel:
    """``model`` (a Transformer or an NGram), its ``tokenizer`` (None: it takes ids only), and the ``folder`` that they
    came from, if any."""

    def __init__(
        self,
        model: "Transformer | NGram",
        tokenizer: AnyTokenizer | None,
        folder: Path | None = None,
        *,
        name: str | None = None,
        found: Found | None = None,
    ) -> None:
        self.model: Any = model
        self._tokenizer = tokenizer
        self.folder = folder
        self.found = found  # where its weights are, against which adapters are checked
        self.name = name or str(folder or "-")
        adapted = found is not None and found.kind == "adapter"  # whose settings may be the base's
        self.generation_config = generation_of(found) if adapted else read_generation(folder) if folder else {}
        where = str(folder / GENERATION) if folder else GENERATION
        self._defaults = from_generation_config(self.generation_config)
        settled({}, self._defaults, GENERATION, where=where)  # a fault there is named there
        stops = tokenizer.stops if tokenizer is not None else ()
        self.stop_ids = frozenset({*stops, *ids_of(self.generation_config.get("eos_token_id"))})
        self._drafts: dict[str, LanguageModel] = {}

    @property
    def tokenizer(self) -> Any:
        """ModelError when the model has none and is to read or write text."""
        if self._tokenizer is None:
            raise ModelError("language_model.no-tokenizer", name=self.name)
        return self._tokenizer

    @property
    def context(self) -> int | None:
        """The longest input in tokens; None for an n-gram, and where positions are only relative to each other."""
        return context_of(self.model)

    @property
    def kind(self) -> str:
        """decoder, encoder, encoder-decoder or ngram."""
        return "ngram" if isinstance(self.model, NGram) else self.model.spec.kind

    def asked(self, **given: Any) -> Asked:
        """What such a call of ``generate`` comes to, argument > generation_config.json > default. ConfigError for an
        unknown or bad setting, or for settings that contradict each other."""
        encode = self.tokenizer.encode if self.has_tokenizer else None
        return asked(given, self._defaults, GENERATION, encode=encode)

    def settings(self, **given: Any) -> tuple[Sampling, dict[str, str]]:
        """How tokens would be drawn, and where each of these settings came from (``asked``)."""
        found = self.asked(**given)
        return found.sampling, found.sources

    def generate(
        self,
        prompts: str | Sequence[Prompt],
        *,
        batch: int = 32,
        adapter: str | Sequence[str] | None = None,
        on_result: Callable[[Generation], object] | None = None,
        watch: Callable[[Any], object] | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """A continuation of each prompt, in their order; ``batch`` at a time, which changes nothing but the speed.

        A string is read with the begin token before it where the tokenizer puts one, a list of ids as it is. An
        encoder-decoder reads the prompt in its encoder and writes an answer of its own. ``settings`` are the fields of
        ``Sampling`` (``max_tokens=40, temperature=0, stop="\\n"`` …), ``Search`` (``beams=4`` …), ``Drafting``
        (``draft="lookup"`` …; also a language model itself) and ``Constraining`` (``schema={…}``, ``regex=…`` …);
        prompt i has ``seed + i``. ``adapter``: those that are on for this call (() for none). ``watch`` is told how
        each token was chosen (``decode.sample.Choice``, or ``decode.search.beam.Beams``).

        A single prompt that fails on its way raises its error; of several, that one's result has ``finish`` "failed"
        and the ``error``.
        """
        reads = [self.read(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        with using(self, adapter):
            results = write(self, reads, self.asked(**settings), batch=batch, on_result=on_result, watch=watch)
        if len(results) == 1 and results[0].failure is not None:
            raise results[0].failure
        return results

    def chat(self, messages: Sequence[Message], **settings: Any) -> Generation:
        """The assistant's next message in a dialogue ([{role, content}]), laid out as in training.

        With ``truncate="left"`` a history that does not fit loses its oldest exchanges, whole; they are counted.
        """
        found = self.asked(**settings)
        if found.search.on or found.drafting.draft:  # these do not come token by token
            kept, dropped = self.fit_messages(messages, found.sampling)
            given: dict[str, Any] = {**settings, "truncate": "error"}
            [made] = self.generate([render(self.tokenizer, kept, reply=True).ids], **given)
            return dataclasses.replace(made, dropped_messages=dropped)
        answer = self.stream(messages, **settings)
        for _ in answer:
            pass
        assert answer.result is not None
        return answer.result

    def stream(self, prompt: Prompt | Sequence[Message], **settings: Any) -> Stream:
        """The pieces of one answer's text as they come; its ``result`` is there when they have ended.

        ``prompt``: a string or ids to be continued, or a dialogue to be answered. ConfigError for a search, whose
        answer is known at its end only.
        """
        found = self.asked(**settings)
        if found.search.on or found.drafting.draft:
            raise ConfigError("language_model.no-stream")
        if isinstance(prompt, str) or (len(prompt) and not isinstance(prompt[0], Mapping)):
            return Stream(self, self.read(prompt), found)  # type: ignore[arg-type]
        kept, dropped = self.fit_messages(prompt, found.sampling)  # type: ignore[arg-type]
        ids = render(self.tokenizer, kept, reply=True).ids
        return Stream(self, self.read(ids), found, dropped)

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
    def score(
        self,
        texts: str | Sequence[str],
        *,
        sources: str | Sequence[str] | None = None,
        end: bool = False,
        batch: int = 16,
    ) -> list[Scored]:
        """The log-prob of each token of each text; ``end`` adds the token that ends a document.

        An encoder-decoder needs ``sources``, what its encoder reads for each text. Raises ModelError for a text that is
        longer than the context, and for an encoder, which gives no probability to a text.
        """
        texts = [texts] if isinstance(texts, str) else texts
        sources = [sources] if isinstance(sources, str) else sources
        rows, read = self._to_score(texts, sources, end)
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
            logprobs = self._logprobs([rows[i] for i in chunk], None if read is None else [read[i] for i in chunk])
            found |= zip(chunk, logprobs, strict=True)
        return [Scored(row[1:], found[i]) for i, row in enumerate(rows)]

    @torch.inference_mode()
    def logits(
        self,
        ids: Rows,
        *,
        decoder_ids: Rows | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        output: str | None = None,
    ) -> Tensor:
        """What the checkpoint's own head (or the one called ``output``) gives for (B, T) ids: (B, T, V) over a
        vocabulary, (B, labels) for classes …; an n-gram's log-probs are its logits.

        ``mask`` (B, T) is False (or 0) on padding. An encoder-decoder needs ``decoder_ids`` too, unless it classifies:
        then its decoder reads ``ids`` as well. Raises ModelError, with the row: an id out of range, rows of different
        lengths, a row beyond the context.
        """
        if isinstance(self.model, NGram):
            rows = checked(self.model, ids)
            return torch.stack([torch.stack([torch.as_tensor(self.model.next_logprobs(row[: t + 1]))
                                             for t in range(len(row))]) for row in rows])  # fmt: skip
        pooled_over = mask
        if self.kind == "encoder-decoder" and self.model.outputs.named(output) == "classifier" and decoder_ids is None:
            rows = checked(self.model, ids)  # it reads its own input again, one place later (BART, section 3.1)
            decoder_ids = [[*self._decoder_start()[:1], *row[:-1]] for row in rows]
        elif decoder_ids is not None:
            pooled_over = None
        hidden = self.hidden(ids, decoder_ids=decoder_ids, mask=mask, segments=segments)
        return self.model.logits(hidden, mask=_truth(pooled_over), output=output)

    @torch.inference_mode()
    def hidden(
        self,
        ids: Rows,
        *,
        decoder_ids: Rows | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        capture: Iterable[str] | None = None,
    ) -> Any:
        """The last hidden states, (B, T, D); with ``capture`` also what each layer saw (``Transformer.forward``)."""
        device = self.model.device
        given = {"ids": ids, **({} if decoder_ids is None else {"decoder_ids": decoder_ids})}
        read = {name: torch.tensor(checked(self.model, rows), device=device) for name, rows in given.items()}
        return self.model(
            read.pop("ids"), **read, mask=_truth(mask), segments=segments, **({"capture": capture} if capture else {})
        )

    @torch.inference_mode()
    def embed(self, texts: Prompt | Sequence[Prompt], *, batch: int = 32, truncate: str = "error") -> Tensor:
        """One vector a text (or a row of ids), (N, D) in f32: a sentence encoder's own, the mean of the last hidden
        states for any other model (the encoder's where there are two stacks).

        Texts are read at most ``batch`` at a time, so that no work goes into padding: an encoder reads them side by
        side in one row, other models in groups of like length. ``truncate="right"`` cuts a text to what the model
        reads; otherwise ModelError names it.
        """
        if isinstance(self.model, NGram):
            raise ModelError("language_model.no-embedding", name=self.name)
        many = [texts] if isinstance(texts, str) or (len(texts) and isinstance(texts[0], int)) else texts
        rows = self._to_embed(many, cut=truncate == "right")  # type: ignore[arg-type]
        check_ids(self.model, rows)
        found: dict[int, Tensor] = {}
        side_by_side = packs(self.model)
        for group in buckets([len(row) for row in rows], batch, padding=1.0 if side_by_side else PADDING):
            chosen = [rows[i] for i in group]
            ids, real = padded(chosen, self.model.device)
            if side_by_side:
                hidden = packed_states(self.model, chosen)
            else:
                hidden = self.model.encode(ids, mask=real) if self.kind != "decoder" else self.model(ids, mask=real)
            found |= zip(group, self.model.sentence(hidden, real).float().cpu(), strict=True)
        return torch.stack([found[i] for i in range(len(rows))])

    def save(self, folder: str | Path) -> None:
        """Write a model folder that ``load`` and other libraries open: whole or not at all.

        An older model folder there is replaced; ModelError when anything else stands there.
        """
        folder = Path(folder)
        check_place(folder)
        if isinstance(self.model, NGram):
            self.model.save(folder)
            return
        write_folder(folder, self._write)

    @property
    def adapters(self) -> dict[str, bool]:
        """The names of the adapters on this model, and whether each is on."""
        return names(self)

    def add_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """Put an adapter's folder on this model, switched on alone; its name, the folder's when left out."""
        name = name or Path(folder).name
        add(self, folder, name)
        return name

    def use(self, *adapters: str) -> None:
        """Switch these adapters on and all others off: none at all leaves the base."""
        switch(self.model, adapters)

    def retokenize(self, tokenizer: AnyTokenizer) -> None:
        """Another tokenizer, which knows more tokens."""
        self._tokenizer = tokenizer
        self.stop_ids |= frozenset(tokenizer.stops)
        vars(self).pop("constrainer", None)

    @property
    def has_tokenizer(self) -> bool:
        return self._tokenizer is not None

    def resolved(self, sampling: Sampling) -> Sampling:
        """The same in ids only, with the model's own stop ids. ConfigError for an id that the model does not have."""
        encode = self.tokenizer.encode if self.has_tokenizer else None
        return sampling.resolved(encode, size=vocabulary_of(self.model), stop_ids=self.stop_ids)

    @cached_property
    def constrainer(self) -> Constrainer:
        """Makes the constraints of requests that ask for a form."""
        size = vocabulary_of(self.model)
        assert size is not None
        return Constrainer(self.tokenizer, size, self.stop_ids)

    def draft(self, name: str) -> "LanguageModel":
        """The model called ``name`` that guesses tokens for this one: opened once, with this one's device and type."""
        if name not in self._drafts:
            weights = next(self.model.parameters(), None) if isinstance(self.model, torch.nn.Module) else None
            device = "cpu" if weights is None else weights.device.type
            dtype = "bf16" if weights is not None and weights.dtype == torch.bfloat16 else "auto"
            model, tokenizer, folder, found = opened(name, device, dtype)  # type: ignore[arg-type]
            self._drafts[name] = LanguageModel(model, tokenizer, folder, name=name, found=found)
        return self._drafts[name]

    def token_bytes(self, id: int) -> bytes:
        """A token's bytes; none for an id that the model has and the tokenizer has not (a padded vocabulary)."""
        return piece_bytes(self.tokenizer, id)

    def _write(self, made: Path) -> None:
        write_model(self.model, self._tokenizer, made, generation=self.generation_config)
        for name in KEPT_FILES:
            if self.folder and (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, made / name)

    def read(self, prompt: Prompt) -> Read:
        """A prompt as the model reads it; ModelError for a model that does not write."""
        if self.kind != "ngram" and not self.model.writes:
            raise ModelError(
                "language_model.cannot-write", name=self.name, outputs=", ".join(self.model.spec.outputs) or "-"
            )
        if self.kind != "encoder-decoder":
            return Read(self.tokenizer.prompt(prompt) if isinstance(prompt, str) else list(prompt))
        source = self.tokenizer.around(prompt)[0] if isinstance(prompt, str) else list(prompt)
        checked(self.model, [source])
        return Read(self._decoder_start(), source)

    def _decoder_start(self) -> list[int]:
        """The ids that a decoder is given before it writes: its start token, and one that is forced to follow."""
        start = self.model.spec.decoder_start
        if start is None:
            raise ModelError("language_model.no-start", name=self.name)
        return [start, *ids_of(self.generation_config.get("forced_bos_token_id"))]

    def _to_score(
        self, texts: Sequence[str], sources: Sequence[str] | None, end: bool
    ) -> tuple[list[list[int]], list[list[int]] | None]:
        """The rows whose tokens after the first are scored, and what an encoder reads for each."""
        if self.kind != "ngram" and not self.model.writes:
            raise ModelError(
                "language_model.no-score", name=self.name, outputs=", ".join(self.model.spec.outputs) or "-"
            )
        tokenizer = self.tokenizer
        tail = [tokenizer.end] if end and tokenizer.end is not None else []
        encoded = tokenizer.encode_many(texts)
        if self.kind != "encoder-decoder":
            head = [] if tokenizer.begin is None else [tokenizer.begin]
            return [[*head, *ids, *tail] for ids in encoded], None
        if sources is None or len(sources) != len(texts):
            raise ModelError("language_model.no-sources", count=len(texts), given=len(sources or ()))
        start = self._decoder_start()[:1]
        return [[*start, *ids, *tail] for ids in encoded], [tokenizer.around(text)[0] for text in sources]

    def _to_embed(self, texts: Sequence[Prompt], *, cut: bool) -> list[list[int]]:
        """What is read of each text; ModelError names one that is too long and may not be cut."""
        sentence = self.model.spec.sentence
        limits = [limit for limit in (self.context, sentence and sentence.longest) if limit]
        rows: list[list[int]] = []
        for number, text in enumerate(texts, start=1):
            longest = min(limits, default=None)
            if isinstance(text, str):
                text = text.lower() if sentence is not None and sentence.lower else text
                row = self.tokenizer.around(text, longest=longest if cut else None)[0]
            else:
                row = list(text)[:longest] if cut else list(text)
            if not row or (longest and len(row) > longest):
                raise ModelError(
                    "language_model.cannot-embed", number=number, count=len(texts), length=len(row), longest=longest
                )
            rows.append(row)
        return rows

    def _logprobs(self, rows: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None) -> list[list[float]]:
        """Of each row's tokens after its first; right-padded, so that nothing sees a pad."""
        if isinstance(self.model, NGram):
            return [self.model.score(row).tolist() for row in rows]
        if max(map(len, rows)) == 1:
            return [[] for _ in rows]
        model = self.model
        ids, real = padded(rows, model.device)
        targets = ids[:, 1:].masked_fill(~real[:, 1:], IGNORE)
        was_training = model.training
        model.eval()
        if sources is None:
            hidden = model(ids[:, :-1])
        else:
            source, mask = padded(sources, model.device)
            hidden = model(source, mask=mask, decoder_ids=ids[:, :-1])
        found = token_logprobs(
            model.output_states(hidden), model.output_table, targets, bias=model.output_bias
        ).tolist()  # (B, T - 1)
        model.train(was_training)
        return [values[: len(row) - 1] for values, row in zip(found, rows, strict=True)]


def _truth(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.bool()
