"""What is measured on held-out texts: how the student does, and how far it is from its teacher."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amauta.device import Device
from amauta.losses.distill import Known, distilled, forward_kl, logprobs_of
from amauta.losses.token import token_logprobs
from amauta.models.transformer import Transformer
from amauta.train.distill.material import Texts
from amauta.train.loop import Step
from amauta.train.objectives import picked, read

Figures = Callable[[], dict[str, float]]


def beside_teacher(
    teacher: Transformer | None, student: Transformer, texts: Texts, rows: int, length: int, device: Device
) -> Figures:
    """``heldout_loss`` (nats a target); with a teacher ``heldout_kl`` from it to the student (nats, T = 1), its own
    ``heldout_teacher_loss``, and the share of targets for which both have the same likeliest token."""

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        sums = dict.fromkeys(("loss", *(("kl", "teacher_loss", "agreement") if teacher is not None else ())), 0.0)
        n = 0
        for batch in (one.to(device.device) for one in texts.batches(rows, length)):
            with device.context():
                found, targets = picked(read(student, batch), batch.targets)
                n += len(targets)
                mine = _said(student, found, device)
                sums["loss"] -= float(token_logprobs(mine[0], targets=targets, **mine[1]).double().sum())
                if teacher is not None:
                    theirs = _said(teacher, picked(read(teacher, batch), batch.targets)[0], device)
                    sums["teacher_loss"] -= float(
                        token_logprobs(theirs[0], targets=targets, **theirs[1]).double().sum()
                    )
                    kl, same = _apart(mine, theirs)
                    sums["kl"] += kl
                    sums["agreement"] += same
        return {f"heldout_{name}": value / max(1, n) for name, value in sums.items()}

    return evaluate


Said = tuple[Tensor, dict[str, Any]]  # states, and what makes log-probs of them


def _said(model: Transformer, states: Tensor, device: Device) -> Said:
    return model.output_states(states), {
        "table": model.output_table, "bias": model.output_bias, "dtype": device.autocast,
    }  # fmt: skip


def _apart(mine: Said, theirs: Said) -> tuple[float, float]:
    """The sum of KL(teacher ‖ student), and how many likeliest tokens are the same."""

    def said(start: int, stop: int) -> Known:
        return Known(logprobs_of(theirs[0][start:stop], temperature=1.0, **theirs[1]))

    kl, _ = distilled(mine[0], mine[1]["table"], said, forward_kl, bias=mine[1]["bias"], dtype=mine[1]["dtype"])
    likeliest = [logprobs_of(states, temperature=1.0, **how).argmax(-1) for states, how in (mine, theirs)]
    return float(kl), float((likeliest[0] == likeliest[1]).sum())


def by_step(step: Step, student: Transformer, texts: Texts, rows: int, length: int, device: Device) -> Figures:
    """The loss of a step and its parts, means over what the step counts."""

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        sums: dict[str, float] = {}
        n = 0
        for batch in (one.to(device.device) for one in texts.batches(rows, length)):
            with device.context():
                total, count, parts = step(student, batch)
            n += count
            for name, value in {"loss": total, **parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return {f"heldout_{name}": value / max(1, n) for name, value in sums.items()}

    return evaluate
