"""The one loop. A method is a step and a stream of batches; everything else is here.

A step is ``(model, batch) → (sum, count, metrics)``: the sum of the batch's losses with its graph, the number of
losses in it, and sums of whatever else the method wants to see, each divided by ``count`` for the journal. The
gradient of a whole optimiser step is divided once by its whole count, so k micro-batches equal one batch. An objective
with several means brings each to the first one's count by ``batch.totals``, what ``Batch.counts`` finds in the step.

A run is replayable: batches are a function of seed and step, weights and optimiser are in the checkpoint, and dropout
draws from a generator seeded by the step. So the weights after a resume are those of a run that never stopped, bit for
bit on a CPU.
"""

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from amauta import checkpoint
from amauta.base.errors import Interrupted, RunError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.batches import Batch
from amauta.device import Device, matmul_peak
from amauta.metrics import Journal, console, newest, progress
from amauta.optim.groups import Optimizers
from amauta.optim.schedules import factor
from amauta.optim.settings import Optim
from amauta.runs import Run
from amauta.train.aware import make_aware
from amauta.train.settings import Loop

Step = Callable[[Any, Batch], tuple[Tensor, int, dict[str, float]]]


class Stream(Protocol):
    """Where batches come from: an iterator whose place can be kept and taken up again."""

    def __next__(self) -> Batch: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass
class Work:
    """What a method brings to the loop."""

    model: Any  # the module whose parameters are trained; ``compiled()`` gives what the step is called with
    step: Step
    stream: Stream
    steps: int
    device: Device
    flops_per_token: float
    splits: dict[Tensor, tuple[int, ...]]  # matrices inside packed weights, for Muon
    describe: Callable[[Batch], str]  # names a batch's records in an error
    evaluate: Callable[[], dict[str, float]] | None = None
    sample: Callable[[], Sequence[tuple[str, str]]] | None = None
    own: Sequence[dict[str, Any]] = ()  # AdamW's groups of parameters with a rate or a decay of their own
    masks: Mapping[Tensor, Tensor] = field(default_factory=dict[Tensor, Tensor])  # of pruned weights: False stays at 0


def train(run: Run, work: Work, settings: Loop, optim: Optim) -> dict[str, Any]:
    """Run ``work.steps`` steps, from the newest checkpoint when there is one; returns the figures of the run.

    Raises RunError (loss or gradient not finite, with the batch named; the disk full during a checkpoint, the one
    before survives) and Interrupted (Ctrl-C or SIGTERM, after a checkpoint).
    """
    dtype = work.device.autocast or torch.float32
    make_aware(work.model, settings.qat)
    optimizers = Optimizers(work.model, optim, splits=work.splits, muon_dtype=dtype, own=work.own)
    done = _restore(run, work, optimizers)
    rate = factor(optim, work.steps)
    model = work.model.compiled() if settings.compile else work.model
    peak = matmul_peak(work.device.device, dtype)
    save_every = settings.save_every or max(1, work.steps // 10)
    meter = _Meter(work.flops_per_token, peak)
    figures: dict[str, Any] = {}
    with Journal(run.metrics, from_step=done) as journal, Journal(run.samples, from_step=done) as samples:
        if done == 0:
            figures |= _look(work, journal, samples, 0, True, True)
        with _interruptible() as stop, progress(say("train.training"), work.steps) as bar:
            bar.advance(done)
            work.model.train()
            for step in range(done, work.steps):
                asked = time.perf_counter()
                batches = [next(work.stream) for _ in range(settings.accumulate)]
                totals = share_totals(batches)
                waited = time.perf_counter() - asked
                values = _one_step(model, work, optimizers, batches, settings.seed, step, rate(step), optim.clip)
                values |= meter.tick(totals["tokens"], waited)
                last = step + 1 == work.steps
                evaluate = last or bool(settings.evaluate_every and (step + 1) % settings.evaluate_every == 0)
                sample = last or bool(settings.sample_every and (step + 1) % settings.sample_every == 0)
                journal.log(step + 1, **values)
                bar.advance(1, loss=values["loss"], tok_s=values["tokens_per_second"])
                figures = _look(work, journal, samples, step + 1, evaluate, sample) or figures
                if evaluate or sample:
                    meter.pause()
                if last or stop.is_set() or (step + 1) % save_every == 0:
                    _save(run, work, optimizers, step + 1, settings)
                    meter.pause()
                if stop.is_set() and not last:
                    raise Interrupted("train.interrupted", step=step + 1, steps=work.steps, folder=run.folder)
    if done == work.steps and work.evaluate is not None:  # stopped after its last step and before its model was kept
        figures = work.evaluate()
    return {"steps": work.steps, "loss": newest(run.metrics, "loss"), **figures} | meter.totals()


def share_totals(batches: Sequence[Batch]) -> Counter[str]:
    """The counts of a step's micro-batches together, which each of them is told."""
    totals = sum((batch.counts() for batch in batches), Counter[str]())
    for batch in batches:
        batch.totals = totals
    return totals


def _one_step(
    model: nn.Module,
    work: Work,
    optimizers: Optimizers,
    batches: list[Batch],
    seed: int,
    step: int,
    rate: float,
    clip: float,
) -> dict[str, float]:
    """Gradients of all micro-batches, divided by their whole count, clipped, applied."""
    torch.manual_seed(derive(seed, "dropout", step))
    sums: list[Tensor] = []
    count, extras = 0, dict[str, float]()
    for batch in batches:
        with work.device.context():
            total, n, metrics = work.step(model, batch.to(work.device.device))
        total.backward()
        sums.append(total.detach())
        count += n
        for name, value in metrics.items():
            extras[name] = extras.get(name, 0.0) + value
    for weight, mask in work.masks.items():
        if weight.grad is not None:
            weight.grad.mul_(mask)
    grads = [p.grad for p in optimizers.parameters if p.grad is not None]
    if count:
        torch._foreach_mul_(grads, 1.0 / count)
    norm = torch.nn.utils.get_total_norm(grads)
    loss, length = sum(float(total) for total in sums) / max(1, count), float(norm)
    if not (math.isfinite(loss) and math.isfinite(length)):
        guilty = [batch for batch, total in zip(batches, sums, strict=True) if not torch.isfinite(total)] or batches
        records = "; ".join(work.describe(batch) for batch in guilty)
        raise RunError("train.not-finite", step=step + 1, loss=loss, norm=length, records=records)
    if clip and length > clip:
        torch._foreach_mul_(grads, clip / (length + 1e-6))
    optimizers.step(rate)
    with torch.no_grad():  # Muon moves every entry of a matrix
        for weight, mask in work.masks.items():
            weight.mul_(mask)
    means = {name: float(value) / max(1, count) for name, value in extras.items()}
    return {"loss": loss, **means, "lr_factor": rate, "grad_norm": length, "supervised": count}


def _look(work: Work, journal: Journal, samples: Journal, step: int, evaluate: bool, sample: bool) -> dict[str, Any]:
    """Evaluate and sample where asked, with the model in evaluation mode; what was found, {} when nothing was."""
    found: dict[str, Any] = {}
    work.model.eval()
    if evaluate and work.evaluate is not None:
        found = work.evaluate()
        journal.log(step, **found)
        console.print(say("train.evaluated", step=step, figures=_short(found)), markup=False, soft_wrap=True)
    if sample and work.sample is not None:
        for prompt, text in work.sample():
            samples.log(step, prompt=prompt, text=text)
    work.model.train()
    return found


def _short(figures: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float))


class _Meter:
    """Tokens, seconds and FLOPs, evaluation and saving left out."""

    def __init__(self, flops_per_token: float, peak: float) -> None:
        self.flops_per_token, self.peak = flops_per_token, peak
        self.tokens, self.seconds, self.first, self.waited = 0, 0.0, 0.0, 0.0
        self.ticks = 0
        self.last = time.perf_counter()

    def pause(self) -> None:
        """What happened since the last tick was not training."""
        self.last = time.perf_counter()

    def tick(self, tokens: int, waited: float) -> dict[str, float]:
        """What the step that just ended tells; ``waited`` seconds of it were spent on making its batches."""
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        self.ticks += 1
        if self.ticks <= 2:  # compiling
            self.first += spent
        else:
            self.tokens += tokens
            self.seconds += spent
            self.waited += waited
        speed = tokens / max(spent, 1e-9)
        flops = speed * self.flops_per_token
        told = {"tokens": tokens, "tokens_per_second": speed, "flops": flops, "share_of_peak": flops / self.peak}
        return told | {"data_wait": waited / max(spent, 1e-9)}

    def totals(self) -> dict[str, float]:
        speed = self.tokens / self.seconds if self.seconds else 0.0
        return {
            "tokens_per_second": speed,
            "share_of_peak": speed * self.flops_per_token / self.peak,
            "peak_flops": self.peak,
            "compile_seconds": self.first,
            "data_wait": self.waited / self.seconds if self.seconds else 0.0,
        }


def _restore(run: Run, work: Work, optimizers: Optimizers) -> int:
    """Take up the newest checkpoint; the steps already done."""
    latest = run.latest()
    if latest is None:
        return 0
    groups, state = checkpoint.load(latest)
    put_weights(work.model, groups["model"])
    optimizers.restore(groups.get("optimizer", {}))
    work.stream.restore(state["stream"])
    console.print(say("train.resumed", step=state["step"], steps=work.steps), markup=False, soft_wrap=True)
    return int(state["step"])


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model: everything, or where some weights are frozen those that learn."""
    learning = {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    if all(parameter.requires_grad for parameter in model.parameters()):
        return model.state_dict()
    return {name: parameter.detach() for name, parameter in learning.items()}


def put_weights(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Take back what ``weights_of`` gave; RunError where it is of another model."""
    if kept.keys() != weights_of(model).keys():
        raise RunError("train.other-weights", names=", ".join(sorted(kept.keys() ^ weights_of(model).keys())[:8]))
    model.load_state_dict(kept, strict=False)


def _save(run: Run, work: Work, optimizers: Optimizers, step: int, settings: Loop) -> None:
    groups = {"model": weights_of(work.model), "optimizer": optimizers.tensors()}
    state = {"step": step, "steps": work.steps, "seed": settings.seed, "stream": work.stream.state()}
    checkpoint.save(run.checkpoint(step), groups, state)
    checkpoint.prune(run, settings.keep)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one stops at once.

    One Ctrl-C may reach a process twice, from the terminal and from the program that started it: what comes within a
    second of the first is the same.
    """
    asked, first = threading.Event(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if asked.is_set():
            if time.monotonic() - first > 1.0:
                raise KeyboardInterrupt
            return
        first = time.monotonic()
        asked.set()
        console.print(say("train.stopping"), markup=False, soft_wrap=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
