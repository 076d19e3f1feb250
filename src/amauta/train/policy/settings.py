"""The settings of policy optimisation. A method is a set of choices under a name; no torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from amauta.adapt.settings import Adapters
from amauta.base.errors import ConfigError
from amauta.hub.known import ANY_MODEL
from amauta.optim.settings import Optim
from amauta.train.settings import Loop

Method = Literal["reinforce", "ppo", "rloo", "grpo", "dr-grpo", "dapo", "gspo"]


@dataclass(frozen=True)
class Algorithm:
    """What an answer was worth, what is minimised for it, and what each token weighs (``losses/policy.py``)."""

    advantage: Annotated[
        Literal["batch_centred", "leave_one_out", "group_centred", "group_normalised", "gae"],
        Doc("how much better an answer was: than the batch, the others of its group, their mean, or a critic's guess"),
    ] = "group_normalised"
    loss: Annotated[
        Literal["reinforce", "clipped", "sequence_clipped"],
        Doc("the log-prob times the advantage, or the clipped ratio to the old policy, of tokens or of whole answers"),
    ] = "clipped"
    aggregate: Annotated[
        Literal["per_token", "per_answer", "per_longest", "summed"],
        Doc("the mean over all tokens, over each answer's and then answers, the sum by the longest, or the sum"),
    ] = "per_answer"
    low: Annotated[float, Gt(0), Lt(1), Doc("how far the ratio may fall below 1")] = 0.2
    high: Annotated[float, Gt(0), Doc("how far the ratio may rise above 1")] = 0.2
    beta: Annotated[float, Ge(0), Doc("weight of the KL to the reference; 0: no reference is held")] = 0.0
    kl: Annotated[Literal["k1", "k2", "k3"], Doc("its estimator")] = "k3"
    kl_in: Annotated[Literal["loss", "reward"], Doc("where the KL stands")] = "loss"
    kl_target: Annotated[float | None, Doc("KL of an answer, nats, that beta is adapted to; left out: beta stays")] = (
        None
    )
    kl_horizon: Annotated[float, Gt(0), Doc("answers over which beta is adapted")] = 10_000
    gamma: Annotated[float, Gt(0), Le(1), Doc("gae: what a reward one token later is worth")] = 1.0
    lam: Annotated[float, Ge(0), Le(1), Doc("gae: 1 believes rewards only, 0 the critic's next guess only")] = 0.95
    whiten: Annotated[bool, Doc("bring the advantages of an iteration to mean 0 and deviation 1")] = False
    value_clip: Annotated[float, Ge(0), Doc("gae: how far the critic may move in an iteration; 0: freely")] = 0.2
    value_weight: Annotated[float, Ge(0), Doc("gae: weight of the critic's loss")] = 0.1
    resample: Annotated[
        int, Ge(0), Doc("groups whose answers all got one reward are drawn anew, at most so many times")
    ] = 0
    overlong: Annotated[
        int, Ge(0), Doc("so many tokens before the longest answer the reward begins to fall, to 1 less; 0: it does not")
    ] = 0
    mask_cut: Annotated[bool, Doc("answers that were cut off teach nothing")] = False
    no_end: Annotated[float, Ge(0), Doc("taken off the reward of an answer that was cut off")] = 0.0
    ptx_weight: Annotated[float, Ge(0), Doc("weight of the loss of next tokens of --ptx, which brings 1")] = 0.0

    def __post_init__(self) -> None:
        if self.kl_in == "reward" and self.kl == "k2":
            raise ConfigError("policy.biased-kl")
        if self.kl_target is not None and self.kl_target <= 0:
            raise ConfigError("policy.kl-target", value=self.kl_target)


METHODS: dict[Method, dict[str, Any]] = {
    # Williams 1992, with the batch's mean as baseline
    "reinforce": {"advantage": "batch_centred", "loss": "reinforce", "aggregate": "summed", "beta": 0.05, "kl": "k1",
                  "kl_in": "reward"},
    # Schulman et al. 2017, arXiv 1707.06347, as Ouyang et al. 2022, arXiv 2203.02155, use it
    "ppo": {"advantage": "gae", "loss": "clipped", "aggregate": "per_token", "beta": 0.05, "kl": "k1",
            "kl_in": "reward", "whiten": True},
    # Ahmadian et al. 2024, arXiv 2402.14740
    "rloo": {"advantage": "leave_one_out", "loss": "reinforce", "aggregate": "summed", "beta": 0.05, "kl": "k1",
             "kl_in": "reward"},
    # Shao et al. 2024, arXiv 2402.03300
    "grpo": {"advantage": "group_normalised", "loss": "clipped", "aggregate": "per_answer", "beta": 0.04},
    # Liu et al. 2025, arXiv 2503.20783
    "dr-grpo": {"advantage": "group_centred", "loss": "clipped", "aggregate": "per_longest"},
    # Yu et al. 2025, arXiv 2503.14476; overlong is a fifth of the longest answer there too
    "dapo": {"advantage": "group_normalised", "loss": "clipped", "aggregate": "per_token", "high": 0.28,
             "resample": 8, "mask_cut": True},
    # Zheng et al. 2025, arXiv 2507.18071
    "gspo": {"advantage": "group_normalised", "loss": "sequence_clipped", "aggregate": "per_answer", "low": 3e-4,
             "high": 4e-4},
}  # fmt: skip
UPDATES = {"ppo": 4}  # passes over the answers of an iteration, where not 1
OVERLONG = 5  # the part of the longest answer in which DAPO's reward falls: 4,096 of 20,480


@dataclass(frozen=True)
class Policy:
    """Learning from any reward: the model answers, the answers are scored, and the better ones gain probability."""

    model: Annotated[str, Doc(f"the model to start from, and the reference that it is held to: {ANY_MODEL}")]
    data: Annotated[tuple[str, ...], Doc("records to answer: prompt, messages, instruction or question")]
    out: Annotated[Path, Doc("folder of the run")]
    reward: Annotated[
        tuple[str, ...],
        Doc("exact, number, regex:PATTERN, length:N, model:NAME, code or FILE.py:FUNCTION; 0.5*exact; several add up"),
    ]
    heldout: Annotated[tuple[str, ...], Doc("records that are only answered, greedily")] = ()
    method: Annotated[Method, Doc("a set of choices, each of which --algorithm.… may change")] = "grpo"
    algorithm: Algorithm = field(default_factory=Algorithm)
    batch: Annotated[int, Gt(0), Doc("prompts of an iteration")] = 8
    samples: Annotated[int, Gt(0), Doc("answers to each prompt, its group")] = 8
    max_tokens: Annotated[int, Gt(0), Doc("tokens of the longest answer")] = 128
    temperature: Annotated[
        float, Gt(0), Doc("of the answers; the policy that is trained is the model at this temperature")
    ] = 1.0
    updates: Annotated[int, Gt(0), Doc("passes over the answers of an iteration")] = 1
    parts: Annotated[int, Gt(0), Doc("optimiser steps of a pass")] = 1
    running: Annotated[int, Gt(0), Doc("answers that are written at a time")] = 64
    critic: Annotated[str | None, Doc("ppo: the model whose layers the critic begins with; left out: --model")] = None
    ptx: Annotated[tuple[str, ...], Doc("documents whose next tokens are learnt beside (PPO-ptx)")] = ()
    on_fault: Annotated[
        Literal["stop", "drop"], Doc("what a reward that fails or is no number does: stop the run, or drop the answer")
    ] = "stop"
    on_trouble: Annotated[
        Literal["stop", "warn"], Doc("what to do where nothing can be learnt: no reward differs, every answer is cut")
    ] = "stop"
    patience: Annotated[int, Gt(0), Doc("iterations in a row after which trouble is believed")] = 3
    kl_most: Annotated[float, Gt(0), Doc("nats of an answer from the reference that are called a runaway")] = 50.0
    length: Annotated[
        int | None, Doc("tokens of prompt and answer; the model's context, at most 2048, when left out")
    ] = None
    prompts: Annotated[tuple[str, ...], Doc("questions to answer, before, during and after")] = ()
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=lambda: Loop(rows=16, compile=False))
    optim: Optim = field(
        default_factory=lambda: Optim(optimizer="adamw", lr=1e-5, weight_decay=0.0, schedule="constant")
    )

    def __post_init__(self) -> None:
        grouped = self.algorithm.advantage in ("leave_one_out", "group_centred", "group_normalised")
        if grouped and self.samples < 2:
            raise ConfigError("policy.group-of-one", method=self.method, samples=self.samples)
        if not self.reward:
            raise ConfigError("policy.no-reward")
        if self.algorithm.ptx_weight and not self.ptx:
            raise ConfigError("policy.ptx", weight=self.algorithm.ptx_weight)
        if self.loop.accumulate != 1:
            raise ConfigError("policy.accumulate", value=self.loop.accumulate)
        if self.algorithm.overlong >= self.max_tokens:
            raise ConfigError("policy.overlong", value=self.algorithm.overlong, longest=self.max_tokens)

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """The choices of the named method, below everything that was given."""
        method = values.get("method", Policy.method)
        if method not in METHODS:
            return {}  # the check of the field tells it
        found: dict[str, Any] = {"algorithm": dict(METHODS[method]), "updates": UPDATES.get(method, 1)}
        if values.get("ptx"):
            found["algorithm"]["ptx_weight"] = 1.0
        if method == "dapo":
            found["algorithm"]["overlong"] = int(values.get("max_tokens", Policy.max_tokens)) // OVERLONG
        return found
