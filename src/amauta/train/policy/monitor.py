"""What goes wrong without a sound: rewards that do not differ, answers that are all cut, a policy that runs away.

Found in the first iterations, and named with what to do.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amauta.base.errors import RunError
from amauta.base.messages import say
from amauta.metrics import console
from amauta.train.policy.experience import Answer
from amauta.train.policy.settings import Policy

MANY = 0.5  # the share of groups, or of answers, from which on it is told
LONG = 10  # times ``patience``: the iterations after which a reward should have moved


def facts_of(answers: Sequence[Answer]) -> dict[str, float]:
    """An iteration in figures. ``equal_groups``: the share of groups in which all answers got one reward, and that
    teach nothing; ``cut``: of answers without an end; ``kl_answer``: nats from the reference, summed over an answer."""
    rewards = [one.reward for one in answers if one.reward is not None]
    groups: dict[int, list[float]] = {}
    for one in answers:
        if one.reward is not None:
            groups.setdefault(one.group, []).append(one.reward)
    equal = [max(group) - min(group) < 1e-9 for group in groups.values() if len(group) > 1]
    found = {
        "reward": statistics.fmean(rewards) if rewards else math.nan,
        "reward_deviation": statistics.pstdev(rewards) if rewards else math.nan,
        "equal_groups": sum(equal) / max(1, len(equal)),
        "cut": sum(not one.ended for one in answers) / len(answers),
        "answer_tokens": statistics.fmean(len(one.ids) for one in answers),
        "dropped_answers": float(sum(one.reward is None for one in answers)),
    }
    away = [_kl(one) for one in answers if one.reference is not None]
    return found | ({"kl_answer": statistics.fmean(away)} if away else {})


def _kl(one: Answer) -> float:
    """k1 of an answer: an unbiased estimate of its KL to the reference."""
    ours = one.old or one.sampled
    return sum(a - b for a, b in zip(ours, one.reference or (), strict=True))


@dataclass
class Monitor:
    """Watches iterations. ``history`` is part of a checkpoint: a resumed run judges as the uninterrupted one."""

    settings: Policy
    history: list[dict[str, float]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # names of what was told; once each

    def see(self, facts: dict[str, float]) -> None:
        """One more iteration. RunError for trouble in which nothing can be learnt, unless only a warning is wanted."""
        self.history.append({name: round(value, 6) for name, value in facts.items() if math.isfinite(value)})
        for key, fatal in self._troubles():
            name = key.partition(".")[2]
            if name in self.told:
                continue
            values = self._values()
            if fatal and self.settings.on_trouble == "stop":
                raise RunError(key, **values)
            self.told.append(name)
            console.print(say(key, **values), markup=False, soft_wrap=True)

    def _troubles(self) -> list[tuple[str, bool]]:
        """What is wrong now, as keys of the catalogue, and whether nothing can be learnt in it."""
        asked, seen = self.settings, self.history
        last = seen[-asked.patience :]
        if len(last) < asked.patience:
            return []
        found: list[tuple[str, bool]] = []
        grouped = asked.algorithm.advantage in ("leave_one_out", "group_centred", "group_normalised")
        if all(one["cut"] == 1.0 for one in last):
            found.append(("policy.never-ends", True))
        elif all(one["cut"] >= MANY for one in last):
            found.append(("policy.often-cut", False))
        if all("reward" not in one for one in last):
            return [*found, ("policy.all-dropped", True)]
        # once rewards have differed, something was learnt
        never = all(one["equal_groups"] == 1.0 or one.get("reward_deviation", 0.0) < 1e-9 for one in seen)
        if all(one.get("reward_deviation", 0.0) < 1e-9 for one in last):
            found.append(("policy.one-reward" if never else "policy.all-alike", never))
        elif grouped and all(one["equal_groups"] == 1.0 for one in last):
            found.append(("policy.equal-groups" if never else "policy.all-alike", never))
        elif grouped and all(one["equal_groups"] >= MANY for one in last):
            found.append(("policy.many-equal", False))
        if all(one.get("kl_answer", 0.0) > asked.kl_most for one in last):
            found.append(("policy.runaway", True))
        if self._still():
            found.append(("policy.reward-still", False))
        return found

    def _still(self) -> bool:
        """Whether the reward of the last iterations is within the noise of the first ones."""
        part = self.settings.patience * LONG // 2
        if len(self.history) < 2 * part:
            return False
        first = [one["reward"] for one in self.history[:part] if "reward" in one]
        last = [one["reward"] for one in self.history[-part:] if "reward" in one]
        if min(len(first), len(last)) < 2:
            return False
        noise = math.sqrt((statistics.variance(first) + statistics.variance(last)) / part)
        return statistics.fmean(last) - statistics.fmean(first) < 2 * noise

    def _values(self) -> dict[str, Any]:
        last = self.history[-1]
        asked = self.settings
        return {
            "iteration": len(self.history), "patience": asked.patience, "reward": f"{last.get('reward', math.nan):.4g}",
            "equal": f"{last['equal_groups']:.0%}", "cut": f"{last['cut']:.0%}", "longest": asked.max_tokens,
            "samples": asked.samples, "temperature": asked.temperature, "kl": f"{last.get('kl_answer', 0.0):.3g}",
            "most": asked.kl_most, "beta": asked.algorithm.beta,
        }  # fmt: skip
