"""Pretraining: next-token prediction on documents (causal; Radford et al. 2018, eq. 1), every token but a document's
first predicted once an epoch, none across a document's edge; or another objective (``material.py``) on the same loop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amauta.base.errors import ConfigError, ModelError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.bits import measure
from amauta.data import store
from amauta.data.batches import Batch, Piece, Stored, collate
from amauta.data.read import Reader, Row, read
from amauta.data.records import text_of
from amauta.device import Device
from amauta.hub import Found, find_model
from amauta.losses.token import chunk_gradient, cross_entropy, dynamic_gradient
from amauta.metrics import progress
from amauta.models import count
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of, tokenizer_called
from amauta.models.pruned import masks_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run, write_folder
from amauta.score import sequence_logprobs
from amauta.tokenize.either import AnyTokenizer, documents, scored
from amauta.train.adapted import adapted, unadapted
from amauta.train.freeze import freeze
from amauta.train.loop import Step, Work, train
from amauta.train.manners import check_able, spec_as
from amauta.train.material import Material, check_tokens, corrupted, describe, text_store
from amauta.train.objectives import Electra
from amauta.train.preflight import check_model, check_spec, check_units
from amauta.train.settings import Loop, Pretrain
from amauta.train.start import conclude, open_run, prepare, sampler, stream_and_steps

ENCODED_AT_ONCE = 1024  # documents


def pretrain(settings: Pretrain) -> dict[str, Any]:
    """Train a model from nothing (or from ``start``) and leave it in ``out/model``; returns the run's figures.

    Held-out documents are scored in bits per byte; where they carry their exact ``logprob`` the excess over their
    entropy is given too. Under another objective than next-token prediction they are scored by it, with noise that is
    the same every time. Raises ConfigError, DataError, ModelError, RunError, Interrupted.
    """
    if settings.train_only != "all" and settings.start is None:
        raise ConfigError("train.only-of-a-start", train_only=settings.train_only)
    if settings.adapters.any and settings.start is None:
        raise ConfigError("train.adapter-of-nothing")
    if settings.adapters.any and settings.train_only != "all":
        raise ConfigError("train.adapter-and-only", train_only=settings.train_only)
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    device, loop = prepare(settings.loop)
    start = None if settings.start is None else find_model(settings.start)
    spec = spec_for(settings, start)
    tokenizer = tokenizer_for(settings, start)
    model = _model(settings, spec, tokenizer, start).to(device.device)
    if settings.train_only != "all":
        freeze(model, settings.train_only)
    tokenizer = adapted(model, tokenizer, settings.adapters, loop.seed)
    length = settings.length or model.spec.context
    check_model(model, length, model.spec.limit or length)
    if settings.objective.objective != "causal":
        check_tokens(settings.objective, tokenizer, model.spec, length)
    reader = read(settings.text, may_skip=settings.may_skip)
    stored = token_store(run, reader, tokenizer, edges=settings.objective.objective == "causal")
    made = _material(settings, loop, device, model, tokenizer, stored, length)
    stream, steps = stream_and_steps(made.units, loop, length, made.collate)
    work = Work(
        model=made.trained,
        step=made.step,
        stream=stream,
        steps=steps,
        device=device,
        flops_per_token=made.flops_per_token,
        splits=made.trained.packed_rows(),
        masks=masks_of(start, model),
        describe=lambda batch: describe(batch, made.units),
        evaluate=made.evaluate,
        sample=_sampler(settings, model, tokenizer),
    )
    result = train(run, work, loop, settings.optim)
    trained = sum(weight.numel() for weight in made.trained.parameters() if weight.requires_grad)
    sizes = {"parameters": count.parameters(model.spec), "trained": trained}
    result = {**result, **sizes, **made.facts, "skipped": reader.skipped}
    if isinstance(made.trained, Electra):
        generator = made.trained.generator.eval()
        write_folder(run.generator, lambda folder: write_model(generator, tokenizer, folder))
        result["generator"] = str(run.generator)
    return conclude(run, settings, model, tokenizer, result, parent=start, files=reader.files)


def spec_for(settings: Pretrain, start: Found | None) -> Spec:
    """What is trained: the spec of ``start``, else of a new model.

    ModelError where it cannot learn the objective; it names the families that can.
    """
    objective = settings.objective
    if start is not None:
        spec, name = spec_of(start), start.name
    else:
        tokenizer = tokenizer_for(settings, start)
        spec = spec_as(settings.as_, settings.size, settings.shape, objective, vocabulary=tokenizer.size,
                       pad=tokenizer.pad, end=tokenizer.end)  # fmt: skip
        name = settings.as_ or settings.size
    check_able(objective, spec, name)
    if start is not None and objective.objective == "causal":
        check_spec(spec, name)
    if spec.reformer is not None:
        raise ModelError("train.not-by-this", name=name, what="reformer")
    if spec.kind == "decoder":
        spec = replace(spec, prefix_lm=objective.objective == "prefix" and objective.see_prefix)
    return spec


def _material(
    settings: Pretrain,
    loop: Loop,
    device: Device,
    model: Transformer,
    tokenizer: AnyTokenizer,
    stored: store.TokenStore,
    length: int,
) -> Material:
    if settings.objective.objective == "causal":
        return _causal(settings, loop, device, model, tokenizer, stored, length)
    held = [(tokenizer.encode(text), len(text.encode())) for _, text in _heldout_texts(settings)]
    heldout = text_store([ids for ids, _ in held], [size for _, size in held], tokenizer) if held else None
    return corrupted(
        settings.objective, model, tokenizer, stored, heldout, length=length, rows=loop.rows, seed=loop.seed,
        device=device, z_loss=settings.z_loss, compiled=loop.compile,
    )  # fmt: skip


def _causal(
    settings: Pretrain,
    loop: Loop,
    device: Device,
    model: Transformer,
    tokenizer: AnyTokenizer,
    stored: store.TokenStore,
    length: int,
) -> Material:
    units = Stored(stored, length)
    check_units([units[i] for i in range(min(len(units.lengths), 1000))],
                vocabulary=model.spec.vocabulary, ends=None, where=", ".join(settings.text))  # fmt: skip
    heldout = [(*scored(tokenizer, text), row.value.get("logprob")) for row, text in _heldout_texts(settings)]
    if heldout:
        check_units([[Piece(np.asarray(ids))] for ids, _, _ in heldout],
                    vocabulary=model.spec.vocabulary, ends=None, where=", ".join(settings.heldout))  # fmt: skip
    return Material(
        trained=model,
        units=units,
        collate=collate,
        step=causal_step(device, z_loss=settings.z_loss, compiled=loop.compile),
        flops_per_token=count.training_flops(model.spec, length),
        evaluate=partial(_scored, model, heldout, loop.rows, length, device) if heldout else None,
        facts={"tokens_per_epoch": int(units.lengths.sum()), "documents": len(stored)},
    )


def causal_step(device: Device, *, z_loss: float = 0.0, compiled: bool = False, dynamic: bool = False) -> Step:
    """The step of next-token prediction, for batches whose targets say what counts: pretraining and fine-tuning,
    ``dynamic`` fine-tuning too (``losses.token.dynamic_gradient``)."""
    by_hand = dynamic_gradient if dynamic else chunk_gradient
    gradient = torch.compile(by_hand, dynamic=False) if compiled else by_hand

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


def _model(settings: Pretrain, spec: Spec, tokenizer: AnyTokenizer, start: Found | None) -> Transformer:
    if start is not None:
        model = unadapted(read_weights(start, tokenizer), start.name)
        model.spec = spec  # how a prompt is read is for the objective to say
        return model
    return Transformer.create(spec, derive(settings.loop.seed, "weights"))


def token_store(run: Run, reader: Reader, tokenizer: AnyTokenizer, *, edges: bool) -> store.TokenStore:
    """The training documents as a token store in the run's folder; an interrupted run finds its own again.

    ``edges``: with their first and last tokens, as next-token prediction has them, else as text alone.
    """
    folder = run.tokens("train")
    if folder.exists():
        return store.TokenStore.open(folder, fingerprint=tokenizer.fingerprint)
    encode = documents if edges else texts_alone
    encoded = _documents(reader, tokenizer, encode)
    return store.write(folder, encoded, vocabulary=tokenizer.size, fingerprint=tokenizer.fingerprint)


Encode = Callable[[AnyTokenizer, Sequence[str]], list[list[int]]]


def texts_alone(tokenizer: AnyTokenizer, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer.encode_many(texts)


def _documents(reader: Reader, tokenizer: AnyTokenizer, encode: Encode) -> Iterator[tuple[np.ndarray, int]]:
    with progress(say("train.tokens"), None) as bar:
        texts: list[str] = []
        for _, text in reader.each(text_of):
            texts.append(text)
            if len(texts) == ENCODED_AT_ONCE:
                yield from _encoded(texts, encode(tokenizer, texts))
                bar.advance(len(texts))
                texts = []
        yield from _encoded(texts, encode(tokenizer, texts))
        bar.advance(len(texts))


def _encoded(texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> Iterator[tuple[np.ndarray, int]]:
    for text, ids in zip(texts, encoded, strict=True):
        yield np.array(ids), len(text.encode())


def _heldout_texts(settings: Pretrain) -> list[tuple[Row, str]]:
    return list(read(settings.heldout, may_skip=settings.may_skip).each(text_of)) if settings.heldout else []


def _sampler(
    settings: Pretrain, model: Transformer, tokenizer: AnyTokenizer
) -> Callable[[], list[tuple[str, str]]] | None:
    """What continues the prompts; an encoder-decoder reads them in its encoder. ConfigError for an encoder."""
    if not settings.prompts:
        return None
    if model.spec.kind == "encoder":
        raise ConfigError("train.no-samples", kind=model.spec.kind)
    if model.spec.kind == "decoder":
        return sampler(model, tokenizer, [(text, tokenizer.prompt(text)) for text in settings.prompts])
    begin = tokenizer.pad if model.spec.decoder_start is None else model.spec.decoder_start
    sources = [tokenizer.around(text)[0] for text in settings.prompts]
    return sampler(model, tokenizer, [(text, [begin or 0]) for text in settings.prompts], sources=sources)


def _scored(
    model: Transformer, heldout: Sequence[tuple[list[int], int, float | None]], rows: int, length: int, device: Device
) -> dict[str, float]:
    """Bits per byte of the held-out documents, and the excess over their entropy where that is known."""

    def score_many(sequences: Sequence[Sequence[int]]) -> Sequence[float]:
        return sequence_logprobs(model, sequences, rows=rows, length=length, autocast=device.autocast).tolist()

    figures = measure(score_many, heldout)
    kept = ("bits_per_byte", "perplexity", "entropy_bits_per_byte", "excess")
    return {f"heldout_{name}" if name == "perplexity" else name: figures[name] for name in kept if name in figures}
