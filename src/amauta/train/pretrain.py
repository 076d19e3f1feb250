"""Pretraining: next-token prediction on documents (causal; Radford et al. 2018, eq. 1), every token but a document's
first predicted once an epoch, none across a document's edge.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amauta.base.errors import ConfigError, ModelError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.bits import measure
from amauta.data import store
from amauta.data.batches import Batch, Piece, Stored
from amauta.data.read import Reader, read
from amauta.data.records import text_of
from amauta.device import Device
from amauta.hub import Found, find_model
from amauta.losses.token import chunk_gradient, cross_entropy
from amauta.metrics import progress
from amauta.models import count
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of, tokenizer_called
from amauta.models.sizes import complete
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.score import sequence_logprobs
from amauta.tokenize.either import AnyTokenizer, documents, scored
from amauta.train.loop import Step, Work, train
from amauta.train.preflight import check_model, check_spec, check_units
from amauta.train.settings import Pretrain
from amauta.train.start import conclude, open_run, prepare, sampler, stream_and_steps

ENCODED_AT_ONCE = 1024  # documents


def pretrain(settings: Pretrain) -> dict[str, Any]:
    """Train a model from nothing (or from ``start``) and leave it in ``out/model``; returns the run's figures.

    Held-out documents are scored in bits per byte; where they carry their exact ``logprob`` the excess over their
    entropy is given too. Raises DataError, ModelError, RunError, Interrupted.
    """
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    device, loop = prepare(settings.loop)
    start = None if settings.start is None else find_model(settings.start)
    if start is not None:
        check_spec(spec_of(start), start.name)
    tokenizer = tokenizer_for(settings, start)
    model = _model(settings, tokenizer, start).to(device.device)
    length = settings.length or model.spec.context
    check_model(model, length, model.spec.context)
    reader = read(settings.text, may_skip=settings.may_skip)
    units = Stored(_encode(run, reader, tokenizer), length)
    check_units([units[i] for i in range(min(len(units.lengths), 1000))],
                vocabulary=model.spec.vocabulary, ends=None, where=", ".join(settings.text))  # fmt: skip
    heldout = list(_heldout(settings, tokenizer))
    if heldout:
        check_units([[Piece(np.asarray(ids))] for ids, _, _ in heldout],
                    vocabulary=model.spec.vocabulary, ends=None, where=", ".join(settings.heldout))  # fmt: skip
    stream, steps = stream_and_steps(units, loop, length)
    prompts = [(text, tokenizer.prompt(text)) for text in settings.prompts]

    def evaluate() -> dict[str, float]:
        return _scored(model, heldout, loop.rows, length, device)

    work = Work(
        model=model,
        step=causal_step(device, z_loss=settings.z_loss, compiled=loop.compile),
        stream=stream,
        steps=steps,
        device=device,
        flops_per_token=count.training_flops(model.spec, length),
        splits=model.packed_rows(),
        describe=lambda batch: _describe(batch, units),
        evaluate=evaluate if heldout else None,
        sample=sampler(model, tokenizer, prompts),
    )
    result = train(run, work, loop, settings.optim)
    result = {
        **result,
        "parameters": count.parameters(model.spec),
        "tokens_per_epoch": int(units.lengths.sum()),
        "documents": len(units.store),
        "skipped": reader.skipped,
    }
    return conclude(run, settings, model, tokenizer, result, parent=start, files=reader.files)


def causal_step(device: Device, *, z_loss: float = 0.0, compiled: bool = False) -> Step:
    """The step of next-token prediction, for batches whose targets say what counts: pretraining and fine-tuning."""
    gradient = torch.compile(chunk_gradient, dynamic=False) if compiled else None

    def step(model: nn.Module, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)
        table: Tensor = model.output_table  # type: ignore[assignment]  # nn.Module hides the type
        total, n = cross_entropy(hidden, table, batch.targets, z_loss=z_loss, dtype=device.autocast, gradient=gradient)
        return total, n, {}

    return step


def tokenizer_for(settings: Pretrain, start: Found | None) -> AnyTokenizer:
    """The tokenizer that the settings name, else that of the model to go on from.

    ConfigError when neither is given, ModelError when both are and differ.
    """
    if settings.tokenizer is None:
        if start is None:
            raise ConfigError("train.no-tokenizer")
        return needed_tokenizer(start)
    tokenizer = tokenizer_called(settings.tokenizer)
    if start is not None and (theirs := needed_tokenizer(start).fingerprint) != tokenizer.fingerprint:
        raise ModelError("train.other-tokenizer", start=start.path, tokenizer=settings.tokenizer, theirs=theirs,
                         ours=tokenizer.fingerprint)  # fmt: skip
    return tokenizer


def _model(settings: Pretrain, tokenizer: AnyTokenizer, start: Found | None) -> Transformer:
    if start is not None:
        return read_weights(start, tokenizer)
    spec = complete(settings.shape, tokenizer.size)
    return Transformer.create(spec, derive(settings.loop.seed, "weights"))


def _encode(run: Run, reader: Reader, tokenizer: AnyTokenizer) -> store.TokenStore:
    """The training documents as a token store in the run's folder; an interrupted run finds its own again."""
    folder = run.tokens("train")
    if folder.exists():
        return store.TokenStore.open(folder, fingerprint=tokenizer.fingerprint)
    documents = _documents(reader, tokenizer)
    return store.write(folder, documents, vocabulary=tokenizer.size, fingerprint=tokenizer.fingerprint)


def _documents(reader: Reader, tokenizer: AnyTokenizer) -> Iterator[tuple[np.ndarray, int]]:
    with progress(say("train.tokens"), None) as bar:
        texts: list[str] = []
        for _, text in reader.each(text_of):
            texts.append(text)
            if len(texts) == ENCODED_AT_ONCE:
                yield from _encoded(texts, tokenizer)
                bar.advance(len(texts))
                texts = []
        yield from _encoded(texts, tokenizer)
        bar.advance(len(texts))


def _encoded(texts: Sequence[str], tokenizer: AnyTokenizer) -> Iterator[tuple[np.ndarray, int]]:
    for text, ids in zip(texts, documents(tokenizer, texts), strict=True):
        yield np.array(ids), len(text.encode())


def _heldout(settings: Pretrain, tokenizer: AnyTokenizer) -> Iterator[tuple[list[int], int, float | None]]:
    """Held-out documents: ids, UTF-8 bytes that they are scored on, exact log-prob where the record carries it."""
    if not settings.heldout:
        return
    for row, text in read(settings.heldout, may_skip=settings.may_skip).each(text_of):
        yield *scored(tokenizer, text), row.value.get("logprob")


def _scored(
    model: Transformer, heldout: Sequence[tuple[list[int], int, float | None]], rows: int, length: int, device: Device
) -> dict[str, float]:
    """Bits per byte of the held-out documents, and the excess over their entropy where that is known."""

    def score_many(sequences: Sequence[Sequence[int]]) -> Sequence[float]:
        return sequence_logprobs(model, sequences, rows=rows, length=length, autocast=device.autocast).tolist()

    figures = measure(score_many, heldout)
    kept = ("bits_per_byte", "perplexity", "entropy_bits_per_byte", "excess")
    return {f"heldout_{name}" if name == "perplexity" else name: figures[name] for name in kept if name in figures}


def _describe(batch: Batch, units: Stored) -> str:
    documents = sorted({int(units.document[unit]) for row in batch.units for unit in row})
    return f"documents {', '.join(map(str, documents[:20]))}{' …' if len(documents) > 20 else ''}"
