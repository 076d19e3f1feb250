"""SePO, SparsePO and MaPO: their steps against naive loops over tokens, their runs by what they leave behind."""

import copy
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from amauta import config, metrics
from amauta.base.errors import ConfigError, Interrupted, ModelError, RunError
from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.losses.preference import tdpo
from amauta.losses.tokenwise import compared, sepo
from amauta.models.exchange.weights import SINGLE
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenwise import SparseMask, load_masks, mapo_masks
from amauta.train import loop
from amauta.train.dialogues import prepare_preferences
from amauta.train.prefer.masks import Masked, fixed, layer_states, learned, masked_step, sparsity
from amauta.train.prefer.run import prefer
from amauta.train.prefer.sepo import draw_pairs, left_scores, oracle_settings, selected
from amauta.train.prefer.steps import preference_step
from amauta.train.prefer.token_settings import Tokenwise
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from tests.train.conftest import Tiny

CPU = pick("cpu", "f32")
SPEC = Spec(vocabulary=50, context=64, width=32, layers=2, heads=2, dropout=0.3)  # which no step uses
STEPS = {"loop": {"steps": 6, "save_every": 2}, "optim": {"lr": 3e-3}}


def pairs(n: int = 5) -> list[tuple[Piece, Piece]]:
    """Prompts with two answers each, of many lengths."""
    draw, found = np.random.default_rng(3), []
    for _ in range(n):
        prompt = draw.integers(0, 50, draw.integers(2, 9))
        sides = [np.concatenate([prompt, draw.integers(0, 50, draw.integers(2, 12))]) for _ in range(2)]
        chosen, rejected = (Piece(ids, np.arange(1, len(ids)) >= len(prompt)) for ids in sides)
        found.append((chosen, rejected))
    return found


def models() -> tuple[Transformer, Transformer]:
    made = [Transformer.create(SPEC, seed) for seed in (1, 2)]
    with torch.no_grad():
        for parameter in (p for one in made for p in one.parameters()):
            parameter.mul_(3)
    return made[0].eval(), made[1].eval()


def packed(units: Any, seed: int = 4) -> Batch:
    (batch,) = PackedBatches(Listed(units), rows=4, length=60, epochs=1, seed=seed)
    assert max(len(row) for row in batch.units) > 1, "no two pairs share a row"
    return batch


def by_token(policy: Transformer, ref: Transformer, piece: Piece) -> list[tuple[float, float, float]]:
    """Of each answer token of a piece alone: log π, log π_ref and KL(π_ref || π), from whole rows of logits."""
    ids = torch.from_numpy(piece.ids)[None]
    with torch.no_grad():
        ours, theirs = (net.logits(net(ids[:, :-1]))[0].double().log_softmax(-1) for net in (policy, ref))
    return [
        (float(ours[t, piece.ids[t + 1]]), float(theirs[t, piece.ids[t + 1]]),
         float((theirs[t].exp() * (theirs[t] - ours[t])).sum()))
        for t in np.flatnonzero(piece.loss)
    ]  # fmt: skip


def sigmoid_loss(x: float) -> float:
    return math.log1p(math.exp(-x))


def naive(policy: Transformer, ref: Transformer, units: Any, masks: Any, beta: float) -> float:
    """The sum of the losses, pair by pair and token by token; ``masks[unit][side]`` two lists of answer tokens."""
    total = 0.0
    for unit, own in zip(units, masks, strict=True):
        u, delta = [0.0, 0.0], [0.0, 0.0]
        for side in (0, 1):
            for (a, b, kl), m, d in zip(by_token(policy, ref, unit[side]), *own[side], strict=True):
                u[side] += m * (a - b)
                delta[side] += d * kl
        total += sigmoid_loss(beta * ((u[0] - u[1]) - (delta[1] - delta[0])))
    return total


def test_the_step_is_the_sum_over_tokens():
    (policy, ref), units = models(), pairs()
    draw = np.random.default_rng(0)
    masks = [[np.where(piece.loss, draw.random(len(piece.loss)), 0).astype(np.float32) for piece in unit]
             for unit in units]  # fmt: skip
    total, count, told = masked_step(fixed(masks), ref, CPU, beta=0.3)(policy.train(), packed(units))
    of_tokens = [[(m[p.loss].tolist(),) * 2 for p, m in zip(*both, strict=True)]
                 for both in zip(units, masks, strict=True)]  # fmt: skip
    assert count == 5 and total.item() == pytest.approx(naive(policy, ref, units, of_tokens, 0.3), rel=1e-4)
    flat = np.concatenate([m[p.loss] for unit, own in zip(units, masks, strict=True)
                           for p, m in zip(unit, own, strict=True)])  # fmt: skip
    assert told["mask_reward"] / 5 == told["mask_divergence"] / 5 == pytest.approx(flat.mean(), rel=1e-5)
    for side, name in enumerate(("kl_chosen", "kl_rejected")):
        kl = [np.mean([kl for _, _, kl in by_token(policy, ref, unit[side])]) for unit in units]
        assert told[name] / 5 == pytest.approx(np.mean(kl), rel=1e-4)


def test_masks_of_one_are_the_step_of_tdpo1_with_its_gradients():
    (policy, ref), units = models(), pairs()
    ones = [[piece.loss.astype(np.float32) for piece in unit] for unit in units]
    found = []
    for step in (
        masked_step(fixed(ones), ref, CPU, beta=0.3, sft_weight=0.2),
        preference_step(
            lambda **given: tdpo(**given, beta=0.3), {"policy", "ref", "divergence"}, CPU, beside=ref, sft_weight=0.2,
            ref=torch.tensor([[sum(b for _, b, _ in by_token(policy, ref, one)) for one in unit] for unit in units]),
        ),
    ):  # fmt: skip
        policy.zero_grad()
        total, _, _ = step(policy, packed(units))
        total.backward()
        found.append((total.detach(), [p.grad.clone() for p in policy.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["common", "independent", "reward", "divergence"])
def test_learned_masks_weigh_what_they_are_for(kind: Any):
    (policy, ref), units = models(), pairs()
    trained = Masked.create(policy, ref.spec, Tokenwise(masks=kind, mask_dropout=0.0), seed=0)
    masks = {name: copy.deepcopy(mask).eval() for name, mask in trained.masks.items()}
    assert set(masks) == {
        "common": {"both"}, "independent": {"reward", "divergence"}, "reward": {"reward"},
        "divergence": {"divergence"},
    }[kind]  # fmt: skip
    if kind == "independent":
        assert not torch.equal(masks["reward"].weight, masks["divergence"].weight)
    values, norms = [], [0.0, 0.0]
    for unit in units:
        own = []
        for piece in unit:
            _, seen = ref(torch.from_numpy(piece.ids[:-1])[None], capture=["hidden"])
            # before the last norm: what the last block gives to it
            kept: list[torch.Tensor] = []
            hook = ref.decoder.norm.register_forward_pre_hook(lambda _m, given, kept=kept: kept.append(given[0]))
            ref(torch.from_numpy(piece.ids[:-1])[None])
            hook.remove()
            states = [seen["decoder"].hidden[1][0], kept[0][0]]
            sides = []
            for place, name in enumerate(("reward", "divergence")):
                mask = masks.get("both", masks.get(name))
                weights = [1.0] * int(piece.loss.sum()) if mask is None else mask(states)[piece.loss].tolist()
                sides.append(weights)
                norms[place] += sum(weights)
            own.append(sides)
        values.append(own)
    l1 = {"l1_reward": 0.01, "l1_divergence": 0.02}

    def weigh(model: Any, batch: Batch, states: list[torch.Tensor]) -> Any:
        assert not any(x.requires_grad for x in states), "the reference's graph is kept"
        return learned(model, batch, states)

    total, _, told = masked_step(weigh, ref, CPU, look=layer_states, beta=0.3, **l1)(trained, packed(units))
    cost = (0.01 * norms[0] + 0.02 * norms[1]) / (2 if kind == "common" else 1)
    assert total.item() == pytest.approx(naive(policy, ref, units, values, 0.3) + cost, rel=1e-4)
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.parameters())
    flat = [m for own in values for sides in own for m in sides[0]]
    assert told["sparsity_reward"] / 5 == pytest.approx(flat.count(0.0) / len(flat))


def test_the_sparsity_that_is_told_is_that_of_the_answers():
    (policy, ref), units = models(), pairs()
    trained = Masked.create(policy, ref.spec, Tokenwise(masks="independent"), seed=0)
    with torch.no_grad():
        trained.masks["reward"].bias.fill_(0.0)
        trained.masks["reward"].weight.mul_(4)
        trained.masks["divergence"].bias.fill_(-9.0)
    step = masked_step(learned, ref, CPU, look=layer_states, beta=0.3)
    trained.masks.eval()
    _, count, told = step(trained, packed(units))
    pieces = [piece for unit in units for piece in unit]
    whole = sparsity(trained, ref, pieces, rows=4, length=60)
    zero, every = 0, 0
    for piece in pieces:
        _, states = layer_states(ref, packed_alone(piece))
        values = trained.masks["reward"]([x[0] for x in states])[torch.from_numpy(piece.loss)]
        zero, every = zero + int((values == 0).sum()), every + len(values)
    assert 0 < zero < every and whole["sparsity_reward"] == pytest.approx(zero / every)
    assert whole["sparsity_divergence"] == 1 and whole["mask_divergence"] == 0 < whole["mask_reward"]
    assert told["sparsity_reward"] / count == pytest.approx(zero / every)
    assert told["sparsity_divergence"] / count == 1 and told["mask_divergence"] == 0


def packed_alone(piece: Piece) -> Batch:
    (batch,) = PackedBatches(Listed([(piece,)]), rows=1, length=len(piece.ids) - 1, epochs=1)
    return batch


def test_a_selection_is_what_the_scores_say():
    units = pairs()
    draw = np.random.default_rng(1)
    scored = [[draw.normal(size=len(piece.loss)) for piece in unit] for unit in units]
    kept = selected(units, scored, Tokenwise(chosen_share=0.4, rejected_share=0.7))
    for unit, values, learns in zip(units, scored, kept, strict=True):
        for side, share in ((0, 0.4), (1, 0.7)):
            answer = np.flatnonzero(unit[side].loss)
            order = sorted(answer, key=lambda t: (1 if side else -1) * values[side][t])
            count = max(1, int(share * len(answer) + 1e-9))
            assert np.flatnonzero(learns[side].loss).tolist() == sorted(order[:count])
            assert learns[side].ids is unit[side].ids and unit[side].loss.sum() == len(answer)


def test_sepos_step_is_the_mean_of_the_selected_tokens():
    (policy, ref), units = models(), pairs()
    scored = [[np.random.default_rng(i).normal(size=len(piece.loss)) for i, piece in enumerate(unit)] for unit in units]
    kept = selected(units, scored, Tokenwise())
    step = preference_step(lambda **given: sepo(**given, scale=2.0, lead=0.1), {"policy", "lengths"}, CPU)
    total, count, _ = step(policy, packed(kept))
    wanted = 0.0
    for unit in kept:
        means = [np.mean([a for a, _, _ in by_token(policy, ref, piece)]) for piece in unit]
        wanted += sigmoid_loss(2.0 * (means[0] - means[1]) - 0.1)
    assert count == 5 and total.item() == pytest.approx(wanted, rel=1e-4)


def test_comparison_equals_whole_logits_with_their_gradients():
    draw = torch.Generator().manual_seed(0)
    hidden, table, bias = (torch.randn(*s, generator=draw, requires_grad=True) for s in ((3, 7, 8), (20, 8), (20,)))
    other, other_table, other_bias = (torch.randn(*s, generator=draw) for s in ((3, 7, 6), (20, 6), (20,)))
    targets = torch.randint(0, 20, (3, 7), generator=draw)
    targets[0, :3] = targets[2] = -100
    weights = torch.randn(3, 3, 7, generator=draw)
    wanted = targets != -100
    p = (hidden @ table.T + bias).log_softmax(-1)
    q = (other @ other_table.T + other_bias).log_softmax(-1)
    at = targets.clamp_min(0)[..., None]
    naive = [p.gather(-1, at)[..., 0] * wanted, q.gather(-1, at)[..., 0] * wanted, (q.exp() * (q - p)).sum(-1) * wanted]
    slopes = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, naive, strict=True)), (hidden, table, bias))
    for chunk in (1, 4, 1000):
        found = compared((hidden, table, bias), (other, other_table, other_bias), targets, chunk=chunk)
        torch.testing.assert_close(list(found), naive)
        total = sum((w * x).sum() for w, x in zip(weights, found, strict=True))
        torch.testing.assert_close(torch.autograd.grad(total, (hidden, table, bias)), slopes)
        with torch.no_grad():
            again = compared((hidden, table, bias), (other, other_table, other_bias), targets, chunk=chunk)
        torch.testing.assert_close(list(again), naive)
    empty = compared((hidden, table, None), (other, other_table, None), torch.full_like(targets, -100))
    assert all(x.shape == targets.shape and not x.any() for x in empty)


def test_a_token_that_cannot_come_adds_nothing_to_the_divergence():
    p, q = torch.tensor([0.0, 1.0, -torch.inf]), torch.tensor([0.5, 0.0, -torch.inf])
    states, table = torch.ones(1, 3, requires_grad=True), torch.zeros(3, 3)
    divergence = compared((states, table, p), (states, table, q), torch.tensor([0]))[2]
    a, b = p[:2].log_softmax(0), q[:2].log_softmax(0)
    assert divergence.item() == pytest.approx(float((b.exp() * (b - a)).sum()), abs=1e-6)
    divergence.sum().backward()
    assert torch.isfinite(states.grad).all()


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made meanwhile holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, list | tuple) else (out,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out


def test_no_tensor_holds_the_logits_of_a_batch():
    N, V, D, chunk = 96, 700, 8, 16
    hidden, table = torch.randn(2, N // 2, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    with Largest() as seen:
        found = compared((hidden, table, None), (torch.randn(2, N // 2, D), torch.randn(V, D), None),
                         torch.randint(0, V, (2, N // 2)), chunk=chunk)  # fmt: skip
        sum(x.sum() for x in found).backward()
    assert chunk * V <= seen.numbers < 2 * chunk * V < N * V
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        compared((hidden, table, None), (torch.randn(2, N // 2, D), torch.randn(V, D), None),
                 torch.randint(0, V, (2, N // 2)), chunk=chunk)  # fmt: skip
    assert max(kept) <= V * D


# ---- whole runs ----


@pytest.fixture
def base(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMAUTA_CACHE", str(tiny.folder / "cache"))
    pretrain(tiny.pretrain("base", loop={"steps": 5}))
    return tiny.folder / "base" / "model"


def weights(tiny: Tiny, out: str) -> dict[str, torch.Tensor]:
    return load_file(tiny.folder / out / "model" / SINGLE)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(tiny: Tiny, out: str) -> list[float]:
    return [row["loss"] for row in metrics.read(Run(tiny.folder / out).metrics) if "loss" in row]


def prepared(tiny: Tiny, settings: Any) -> list[tuple[Piece, ...]]:
    from amauta.tokenize.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tiny.folder / "base" / "model")
    return prepare_preferences(settings.data, tokenizer, length=48, too_long="error", may_skip=0).units


def learnt(settings: Any, units: Any) -> Any:
    return selected(units, left_scores(Run(settings.out), units), settings.tokenwise)


def test_sepo_is_one_command(tiny: Tiny, base: Path):
    heldout = [str(tiny.folder / "pairs.jsonl")]
    settings = tiny.prefer("s", loss="sepo", loop={"steps": 40}, optim={"lr": 3e-3}, heldout=heldout,
                           tokenwise={"oracle_share": 1.0})  # fmt: skip
    result = prefer(settings)
    oracle = json.loads(Run(Run(settings.out).oracle).result.read_text())
    assert (
        losses(tiny, "s/oracle")[0] == pytest.approx(math.log(2), abs=1e-5) and oracle["margin"]
        if "margin" in oracle
        else True
    )
    assert losses(tiny, "s")[-1] < losses(tiny, "s")[0] / 2
    assert result["score_selected_chosen"] > result["score_chosen"] > 0 > result["score_rejected"]
    assert result["score_selected_rejected"] < result["score_rejected"]
    units = prepared(tiny, settings)
    kept = learnt(settings, units)
    ours, every = (sum(int(unit[0].loss.sum()) for unit in some) for some in (kept, units))
    assert result["selected_chosen"] == pytest.approx(ours / every) and 0.15 < ours / every < 0.3
    assert result["heldout_margin"] > 0


def test_selected_tokens_have_the_scores_of_the_two_models(tiny: Tiny, base: Path):
    settings = tiny.prefer("s", loss="sepo", **STEPS)
    prefer(settings)
    from amauta.models import exchange

    oracle, ref = exchange.load(Run(Run(settings.out).oracle).model), exchange.load(base)
    units = prepared(tiny, settings)
    scored = [[np.where(p.loss, (oracle.score(p.ids.tolist()) - ref.score(p.ids.tolist())).numpy(), 0) for p in unit]
              for unit in units]  # fmt: skip
    wanted = selected(units, scored, settings.tokenwise)
    for mine, theirs in zip(learnt(settings, units), wanted, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.loss.tolist() == b.loss.tolist()


def test_an_oracle_may_be_given(tiny: Tiny, base: Path):
    prefer(tiny.prefer("first", loss="sepo", **STEPS))
    oracle = str(tiny.folder / "first" / "oracle" / "model")
    stale = Run(tiny.folder / "second").scores  # of a try that took no step, perhaps with other settings
    stale.parent.mkdir()
    save_file({"scores": -load_file(Run(tiny.folder / "first").scores)["scores"]}, stale)
    prefer(tiny.prefer("second", loss="sepo", tokenwise={"oracle": oracle}, **STEPS))
    assert not Run(tiny.folder / "second").oracle.exists()
    assert equal(weights(tiny, "first"), weights(tiny, "second"))


def test_an_oracle_with_another_vocabulary_is_refused(tiny: Tiny, base: Path):
    from amauta.tokenize.train import train_bpe

    other = tiny.folder / "other"
    train_bpe(["completely different words"] * 3, 280, allow_smaller=True).save(other)
    pretrain(tiny.pretrain("stranger", tokenizer=str(other), loop={"steps": 1}))
    with pytest.raises(ModelError, match="stranger"):
        prefer(tiny.prefer("s", loss="sepo", tokenwise={"oracle": str(tiny.folder / "stranger")}, **STEPS))


def test_scores_of_other_pairs_are_refused(tiny: Tiny, base: Path):
    settings = tiny.prefer("s", loss="sepo", **STEPS)
    prefer(settings)
    with pytest.raises(RunError, match="scores"):
        left_scores(Run(settings.out), prepared(tiny, settings)[:-1])
    with pytest.raises(RunError, match="scores"):
        left_scores(Run(tiny.folder / "none"), prepared(tiny, settings))


def test_the_oracles_pairs_are_drawn_by_the_seed(tiny: Tiny, base: Path):
    lines = (tiny.folder / "pairs.jsonl").read_text().splitlines()
    seen = set()
    for seed in range(5):
        settings = tiny.prefer("s", loss="sepo", loop={"seed": seed}, tokenwise={"oracle_share": 0.4})
        wanted = oracle_settings(settings)
        assert draw_pairs(settings, Run(wanted.out)) == (3, 7)
        text = Run(wanted.out).pairs.read_text()
        draw_pairs(settings, Run(wanted.out))
        assert Run(wanted.out).pairs.read_text() == text
        drawn = [json.loads(line) for line in text.splitlines()]
        assert [json.loads(line) for line in lines if json.loads(line) in drawn] == drawn
        seen.add(text)
    assert len(seen) > 1
    assert wanted.loss == "dpo" and wanted.model == settings.model and not wanted.heldout
    small = tiny.prefer("t", loss="sepo", tokenwise={"oracle_share": 0.01}, reference="other")
    assert draw_pairs(small, Run(tiny.folder / "t"))[0] == 1 and oracle_settings(small).model == "other"


@pytest.mark.parametrize("kind", ["common", "independent"])
def test_masks_are_kept_beside_the_model_and_not_in_it(tiny: Tiny, base: Path, kind: str):
    settings = tiny.prefer("m", loss="sparsepo", tokenwise={"masks": kind, "mask_lr": 0.05}, **STEPS)
    result = prefer(settings)
    before = load_file(base / SINGLE)
    assert weights(tiny, "m").keys() == before.keys() and not equal(weights(tiny, "m"), before)
    masks = load_masks(Run(settings.out).masks)
    assert set(masks) == ({"both"} if kind == "common" else {"reward", "divergence"})
    from amauta.models import exchange

    ref, units = exchange.load(base), prepared(tiny, settings)
    pieces = [piece for unit in units for piece in unit]
    for name, mask in masks.items():
        first = SparseMask.create(32, 2, 0)
        assert not torch.equal(mask.bias, first.bias), "nothing was learnt"
        values = [mask([x[0] for x in layer_states(ref, packed_alone(p))[1]])[torch.from_numpy(p.loss)] for p in pieces]
        flat = torch.cat(values)
        assert result[f"mask_{name}"] == pytest.approx(float(flat.mean().detach()), rel=1e-4)
        assert result[f"sparsity_{name}"] == pytest.approx(float((flat == 0).float().mean()))


def test_what_costs_much_becomes_sparse(tiny: Tiny, base: Path):
    found = {}
    for name, cost in (("dear", 1.0), ("free", 0.0)):
        knobs = {"l1_reward": cost, "l1_divergence": cost, "mask_lr": 0.05}
        found[name] = prefer(tiny.prefer(name, loss="sparsepo", tokenwise=knobs, loop={"steps": 30}))
    assert found["dear"]["sparsity_both"] > 0.5 > 0.1 > found["free"]["sparsity_both"]


def test_mapo_trains_by_the_masks_of_the_reference(tiny: Tiny, base: Path):
    settings = tiny.prefer("m", loss="mapo", loop={"steps": 30}, optim={"lr": 3e-3},
                           heldout=[str(tiny.folder / "pairs.jsonl")])  # fmt: skip
    result = prefer(settings)
    from amauta.models import exchange

    pieces = [piece for unit in prepared(tiny, settings) for piece in unit]
    masks = mapo_masks(exchange.load(base), pieces)
    mean = float(np.concatenate([m[p.loss] for m, p in zip(masks, pieces, strict=True)]).mean())
    rows = [row for row in metrics.read(Run(settings.out).metrics) if "loss" in row]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and rows[0]["kl_chosen"] == pytest.approx(
        0, abs=1e-6
    )
    assert 0.5 * mean < rows[0]["mask_reward"] < 2 * mean and rows[-1]["kl_chosen"] > 0.01
    assert result["heldout_accuracy"] == 1 and rows[-1]["loss"] < 0.5
    assert not Run(settings.out).masks.exists()


def stopping_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    real, count = loop._one_step, iter(range(1, 1000))

    def one_step(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if next(count) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    patch.setattr(loop, "_one_step", one_step)


@pytest.mark.parametrize(("loss", "stops"), [("sepo", (3, 5)), ("sparsepo", (4,)), ("mapo", (4,))])
def test_a_resumed_run_is_the_uninterrupted_one(
    tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch, loss: str, stops: tuple[int, ...]
):
    """SePO is stopped twice: at step 3 of its oracle, and at step 2 of the policy, 5 steps after."""
    values = STEPS | {"loss": loss, "tokenwise": {"mask_dropout": 0.3}}
    whole = prefer(tiny.prefer("whole", **values))
    resume = values | {"loop": values["loop"] | {"resume": True}}
    for i, stop in enumerate(stops):
        with monkeypatch.context() as patch:
            stopping_after(patch, stop)
            with pytest.raises(Interrupted, match=f"step {stop - 3 * i} of 6"):
                prefer(tiny.prefer("parts", **(resume if i else values)))
    parts = prefer(tiny.prefer("parts", **resume))
    assert equal(weights(tiny, "whole"), weights(tiny, "parts")) and losses(tiny, "whole") == losses(tiny, "parts")
    timed = {"model", "tokens_per_second", "share_of_peak", "peak_flops", "compile_seconds", "data_wait"}
    assert {k: v for k, v in whole.items() if k not in timed} == {k: v for k, v in parts.items() if k not in timed}
    if loss == "sparsepo":
        kept = [load_file(Run(tiny.folder / out).masks) for out in ("whole", "parts")]
        assert equal(*kept)


def test_unknown_knobs_and_values_out_of_bounds_are_named(tiny: Tiny):
    for knobs, name in (({"chosen_share": 0.0}, "chosen-share|chosen_share"), ({"oracl": "x"}, "oracle"),
                        ({"masks": "two"}, "independent")):  # fmt: skip
        with pytest.raises(ConfigError, match=name):
            tiny.prefer("s", loss="sepo", tokenwise=knobs)
    assert config.build(Tokenwise, {}) == Tokenwise()


@pytest.mark.parametrize("loss", ["sepo", "sparsepo", "mapo"])
def test_a_replayed_step_has_its_loss_and_the_tokens_that_were_learnt(tiny: Tiny, base: Path, loss: str):
    settings = tiny.prefer("r", loss=loss, tokenwise={"mask_dropout": 0.3}, **STEPS)
    prefer(settings)
    shutil.move(tiny.folder / "r", tiny.folder / "moved")
    for step in (1, 5):
        found = replay(Replay(tiny.folder / "moved", step))
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
        units = prepared(tiny, settings)
        if loss == "sepo":
            units = selected(units, left_scores(Run(tiny.folder / "moved"), units), settings.tokenwise)
        assert found["supervised"] == sum(
            int(piece.loss.sum()) for row in found["rows"] for record in row["records"]
            for piece in units[int(record.rsplit(":", 1)[1]) - 1]
        )  # fmt: skip
