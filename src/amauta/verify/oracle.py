"""Every method of alignment, driven by the real steps to an optimum that is known exactly (X prompts, N answers each).

A row tells of a method: ``distance``, how much probability its trained policy has elsewhere than its own optimum (total
variation, the worse prompt); ``to_rl``, the same to the optimum of ``E r - β KL``; ``bias``, ``scale`` and ``variance``
of its gradient (``gradients.py``); ``known``, how its optimum is known: by formula, by sums, or as the limit in which
the best answer gets all.
"""

from typing import Any

from torch import Tensor

from amauta.base.messages import say
from amauta.metrics import progress
from amauta.verify import driven, exact, gradients, policies, preferences
from amauta.verify.ground import Ground
from amauta.verify.settings import POLICIES, PREFERENCES, Oracle
from amauta.worlds.enumerable import log_partition, total_variation

FAR = {"preference": 1e-2, "policy": 3e-2}  # distances that are missed optima; answers that are drawn leave some noise
CROOKED = 1e-4  # a bias beyond what f32 leaves
UNBIASED = frozenset((*PREFERENCES, "reinforce", "rloo", "dr-grpo")) - {"kto"}  # kto: its z is of the batch


def oracle(settings: Oracle) -> dict[str, Any]:
    """A row for each method, and whether each came as near to its optimum as it must; with ``quick`` only gradients are
    judged, since few steps lead nowhere."""
    ground = Ground(settings)
    names = [name for name in (*PREFERENCES, *POLICIES) if not settings.methods or name in settings.methods]
    rows: list[dict[str, Any]] = []
    ends: dict[str, Tensor] = {}
    with progress(say("oracle.checking"), len(names)) as bar:
        for name in names:
            row, ends[name] = _preference(ground, name) if name in PREFERENCES else _policy(ground, name)
            straight = row["bias"] < CROOKED or name not in UNBIASED
            near = settings.quick or row["distance"] < FAR[row["kind"]]
            rows.append(row | {"passed": straight and near})
            bar.advance(1)
    result: dict[str, Any] = {
        "prompts": len(ground.space.prompts), "answers": len(ground.space.answers), "pairs": len(ground.pairs),
        "beta": settings.beta, "group": settings.group, "seed": settings.seed, "quick": settings.quick,
        "best_value": float(settings.beta * log_partition(ground.ref, ground.reward, settings.beta).mean()),
        "rows": rows, "passed": all(row["passed"] for row in rows),
    }  # fmt: skip
    if {"dpo", "rloo"} <= ends.keys():
        result["dpo_to_rloo"] = _apart(ends["dpo"], ends["rloo"])
    if settings.write:
        from amauta.verify.report import write

        result["written"] = [str(path) for path in settings.write]
        for path in settings.write:
            write(result, path)
    return result


def _preference(ground: Ground, name: str) -> tuple[dict[str, Any], Tensor]:
    trial = preferences.trial(ground, name)
    figures = gradients.of_preference(ground, trial)
    end = driven.preference(ground, trial)
    own = trial.formula
    if own is None:
        own = ground.space.logprobs(exact.settled(exact.downhill(trial.loss()), ground.ref_table))
    return _row(ground, name, "preference", "sums" if trial.formula is None else "formula", end, own) | figures, end


def _policy(ground: Ground, name: Any) -> tuple[dict[str, Any], Tensor]:
    trial = policies.trial(ground, name)
    figures = gradients.of_policy(ground, trial)
    end = driven.policy(ground, trial)
    known = "sums" if name == "grpo" else "formula" if trial.algorithm.beta else "limit"
    return _row(ground, name, "policy", known, end, policies.optimum_of(ground, name)) | figures, end


def _row(ground: Ground, name: str, kind: str, known: str, end: Tensor, own: Tensor) -> dict[str, Any]:
    return {
        "method": name, "kind": kind, "known": known, "distance": _apart(end, own),
        "to_rl": _apart(end, ground.best), "own_to_rl": _apart(own, ground.best),
    }  # fmt: skip


def _apart(log_p: Tensor, log_q: Tensor) -> float:
    return float(total_variation(log_p, log_q).max())
