"""Encoders: DistilBERT's and MiniLM's manners, from the layers that are taken to the loss of a step."""

import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from amauta import config
from amauta.base.errors import ConfigError, ModelError
from amauta.data.batches import Batch
from amauta.device import pick
from amauta.losses.token import IGNORE
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.train.distill.run import distill
from amauta.train.distill.settings import Lesson, Student
from amauta.train.distill.steps import distilbert_step, minilm_step
from amauta.train.distill.student import _of_its_layers, spec_like, spread
from amauta.train.pretrain import pretrain
from amauta.train.settings import Pretrain
from tests.compress.small import SPECS, model_of
from tests.train.conftest import LOOP
from tests.train.distill.conftest import World
from tests.train.distill.test_run import falls

CPU = pick("cpu", "f32")


@pytest.fixture(scope="module")
def taught(made: World) -> World:
    """With an encoder that was trained to fill masks."""
    values: dict[str, Any] = {
        "text": [str(made.folder / "text.jsonl")], "tokenizer": str(made.tokenizer),
        "out": str(made.folder / "encoder"),
        "size": "nano", "as": "bert", "shape": {"width": 32, "layers": 4, "heads": 4, "context": 48, "dropout": 0.0},
        "objective": {"pair": "none", "mask_static": False}, "loop": LOOP | {"steps": 40},
    }  # fmt: skip
    pretrain(config.build(Pretrain, values, {}))
    return made


@pytest.fixture
def world(taught: World, world: World) -> World:
    return world


def asked(world: World, out: str, how: str, **changes: Any) -> Any:
    lesson = {"how": how} | changes.pop("lesson", {})
    return world.distill(out, model=str(world.folder / "encoder" / "model"), lesson=lesson, **changes)


def test_distilbert(world: World):
    settings = asked(world, "run", "distilbert", student={}, loop=LOOP | {"steps": 30})
    assert settings.lesson.softness == 2.0 and settings.objective.objective == "masked"
    result = distill(settings)
    made = exchange.load(world.folder / "run" / "model")
    assert made.spec.layers == 2 and made.spec.segments == 0 and made.spec.family == "distilbert"
    assert {"heldout_kl", "heldout_loss", "heldout_agreement"} <= result.keys() and result["kl"] > 0
    assert result["heldout_kl"] < 0.1
    falls(world.folder / "run", "heldout_loss", 0.97)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(world.folder / "run" / "model").eval()
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, made.logits(made(ids)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lesson", [
    {}, {"relations": ["attention", "values"]}, {"relation_heads": 8, "teacher_layer": 3},
], ids=str)  # fmt: skip
def test_minilm(world: World, lesson: dict[str, Any]):
    student = {"width": 24 if not lesson else 16, "heads": 4 if not lesson else 2, "layers": 2}
    if lesson.get("relations"):
        student = {"width": 16, "heads": 4, "layers": 2}
    if lesson.get("relation_heads"):
        student = {"width": 16, "heads": 2, "layers": 1}
    distill(asked(world, "run", "minilm", student=student, lesson=lesson, loop=LOOP | {"steps": 30}))
    falls(world.folder / "run", "heldout_loss", 0.8)
    card = json.loads((world.folder / "run" / "model" / "card.json").read_text())
    assert card["contract"][-1]["step"] == "distill"  # both have an output over one vocabulary


@pytest.mark.parametrize(("changes", "error", "says"), [
    ({"how": "minilm", "lesson": {"relation_heads": 5}}, ConfigError, "one of 1, 2, 4, 8"),
    ({"how": "minilm", "lesson": {"teacher_layer": 5}}, ConfigError, "layers 1 to 4"),
    ({"how": "minilm", "objective": {"objective": "causal"}}, ConfigError, "--objective masked"),
    ({"how": "distilbert", "student": {"width": 16, "heads": 2}}, ModelError, "16 is not 32"),
    ({"how": "logits"}, ModelError, "masked"),
], ids=str)  # fmt: skip
def test_refused(world: World, changes: dict[str, Any], error: type[Exception], says: str):
    changes = {"student": {"width": 16, "heads": 4}} | changes
    with pytest.raises(error, match=says):
        distill(asked(world, "run", changes.pop("how"), **changes))


def test_logits_of_an_encoder(world: World):
    result = distill(asked(world, "run", "logits", student={}, objective={"objective": "masked"}))
    assert result["heldout_kl"] < 1 and result["top1_agreement"] > 0.2


# Steps, by plain loops ----------------------------------------------------------------------------------------------


def batch() -> Batch:
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0], list(range(9))])
    targets = torch.full((2, 9), IGNORE)
    for row, at in ((0, 1), (0, 5), (1, 0), (1, 7)):
        targets[row, at] = 10 + at
    made = Batch(ids, targets, positions, documents, [[0, 1], [2]])
    made.totals = Counter(targets=8, tokens=32)  # of a step of two such batches
    return made


def said(model: Transformer, given: Batch) -> tuple[Tensor, Tensor]:
    hidden = model(given.ids, positions=given.positions, documents=given.documents)
    return hidden, model.logits(hidden)


def test_the_step_of_distilbert_by_a_loop():
    teacher, student, given = model_of("bert"), model_of("distilbert", seed=2), batch()
    total, n, parts = distilbert_step(Lesson(how="distilbert", softness=2.0), teacher, teacher, CPU)(student, given)
    with torch.no_grad():
        (mine, logits), (theirs, wanted) = said(student, given), said(teacher, given)
    soft = plain = apart = 0.0
    for row in range(2):
        for t in range(9):
            if given.documents[row, t] > 0:
                s, w = (logits[row, t] / 2).log_softmax(-1), (wanted[row, t] / 2).log_softmax(-1)
                soft += 4 * float(F.kl_div(s, w, log_target=True, reduction="sum"))
                apart += 1 - float(F.cosine_similarity(mine[row, t], theirs[row, t], dim=0))
            if given.targets[row, t] != IGNORE:
                plain -= float(logits[row, t].log_softmax(-1)[given.targets[row, t]])
    total = total.detach()
    assert n == 4  # the loop divides by the 8 of the step, so a mean over its 32 tokens is a quarter of their sum
    assert float(parts["teacher_loss"]) == pytest.approx(soft * 8 / 32, rel=1e-4)
    assert float(parts["masked_loss"]) == pytest.approx(plain, rel=1e-4)
    assert float(parts["cosine_loss"]) == pytest.approx(apart * 8 / 32, rel=1e-4)
    assert float(total) == pytest.approx(5 * soft / 4 + 2 * plain + apart / 4, rel=1e-4)


@pytest.mark.parametrize(("name", "relations", "layer"), [
    ("bert", ("attention", "values"), None), ("bert", ("queries", "keys"), 2), ("albert", ("values",), 2),
])  # fmt: skip
def test_the_step_of_minilm_by_a_loop(name: str, relations: Any, layer: int | None):
    teacher, student, given = model_of(name), model_of("distilbert", seed=2), batch()
    lesson = Lesson(how="minilm", relations=relations, teacher_layer=layer)
    total, n, parts = minilm_step(lesson, teacher, student, 4)(student, given)
    calls: dict[str, list[Tensor]] = {"s": [], "t": []}  # of each layer in turn
    for who, model in (("s", student), ("t", teacher)):
        hooks = [
            block.attention.qkv.register_forward_hook(lambda _, __, out, who=who: calls[who].append(out.detach()))
            for block in model.encoder.blocks
        ]
        said(model, given)
        for hook in hooks:
            hook.remove()
    held = {"s": calls["s"][2], "t": calls["t"][(layer or 3) - 1]}
    wanted = 0.0
    for relation in relations:
        for row in range(2):
            for t in range(9):
                if not given.documents[row, t]:
                    continue
                seen = (given.documents[row] == given.documents[row, t]).nonzero()[:, 0]
                for head in range(4):
                    found = []
                    for name in ("s", "t"):
                        q, k, v = (part.unflatten(-1, (4, 8))[row, :, head] for part in held[name].split(32, dim=-1))
                        a, b = {"attention": (q, k), "values": (v, v), "queries": (q, q), "keys": (k, k)}[relation]
                        found.append(((a[t] @ b[seen].T) / 8**0.5).log_softmax(-1))
                    wanted += float(F.kl_div(found[0], found[1], log_target=True, reduction="sum")) / 4
    assert n == 16 and float(total.detach()) == pytest.approx(wanted, rel=1e-4)
    assert set(parts) == {f"{name}_loss" for name in relations}


# Students ------------------------------------------------------------------------------------------------------------


def test_layers_at_even_distances():
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # DistilBERT's
    assert spread(12, 12) == list(range(12)) and spread(5, 1) == [0] and spread(4, 2) == [0, 3]
    assert spread(30, 15)[0] == 0 and spread(30, 15)[-1] == 29 and len(set(spread(30, 15))) == 15


def test_the_layers_of_a_teacher(world: World):
    """A student of all layers is the teacher, its segments folded into the positions."""
    teacher = model_of("bert")
    for layers, same in ((3, True), (2, False)):
        made = _of_its_layers(asked(world, "run", "distilbert", student={"layers": layers}), teacher)
        ids = torch.arange(5, 17)[None]
        with torch.no_grad():
            close = torch.allclose(made.logits(made(ids)), teacher.logits(teacher(ids), output="masked"), atol=1e-5)
        assert close == same and made.spec.segments == 0
    for mine, theirs in zip(made.encoder.blocks, (0, 2), strict=True):
        for key, value in mine.named_parameters():
            assert torch.equal(value, teacher.encoder.blocks[theirs].get_parameter(key))


@pytest.mark.parametrize("name", SPECS)
def test_a_new_student_is_built_as_its_teacher(name: str):
    teacher = SPECS[name]
    if teacher.reformer is not None:
        return
    spec = spec_like(teacher, Student(layers=1, width=16, heads=2))
    assert (spec.layers, spec.width, spec.heads, spec.kind, spec.vocabulary) == (1, 16, 2, teacher.kind, 90)
    assert (spec.positions, spec.norm, spec.norm_place, spec.gated) == (
        teacher.positions, teacher.norm, teacher.norm_place, teacher.gated,
    )  # fmt: skip
    assert spec.head == 8 and Transformer.create(spec, 0)(torch.tensor([[5, 6]]), **(
        {"decoder_ids": torch.tensor([[0]])} if spec.kind == "encoder-decoder" else {}
    )).shape[-1] == 16  # fmt: skip
    if name == "gemma3_text":
        assert spec.embedding_scale == 4.0


def test_a_size_gives_dimensions():
    spec = spec_like(SPECS["llama"], Student(student="nano", feedforward=64))
    assert (spec.layers, spec.width, spec.heads, spec.groups, spec.inner, spec.context) == (4, 128, 4, 4, 64, 24)
    assert not spec.qk_norm  # as its teacher
    wide = spec_like(SPECS["llama"], Student(feedforward=64))
    assert (wide.width, wide.groups, wide.inner) == (32, 2, 64)
    with pytest.raises(ModelError, match="kind encoder"):
        spec_like(SPECS["llama"], Student(student="bert-base"))
