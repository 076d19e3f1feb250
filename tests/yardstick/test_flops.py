"""Counted FLOPs against the arithmetic of ``models/count.py``, which knows no counter."""

from dataclasses import replace

from amauta.data.objective import Objective
from amauta.data.spans import amount
from amauta.losses.token import CHUNK
from amauta.models import count
from amauta.models.spec import Spec
from amauta.train.objectives import SPARSE_CHUNK
from amauta.yardstick.flops import step_flops
from amauta.yardstick.ground import Ground
from amauta.yardstick.systems import ENCODER, FAMILIES, FIRST, TABLE, System, row_length
from tests.yardstick.conftest import small

SETTINGS = small()
T, B = SETTINGS.length, SETTINGS.rows


def counted(system: System, ground: Ground, objective: Objective | None = None, rows: int = B) -> tuple[int, Spec, int]:
    objective = objective or system.objective
    spec = system.spec(SETTINGS, ground.opened())
    length = row_length(objective, spec.kind, T)
    texts = ground.texts(ground.train)[:100]
    return step_flops(spec, objective, ground.opened(), texts, length, rows), spec, length


def test_a_decoder(ground: Ground):
    found, spec, length = counted(FAMILIES[2], ground)
    bare = count.training_flops(replace(spec, outputs=()), length) * B * length
    assert found == bare + 6 * spec.width * spec.vocabulary * CHUNK  # logits come a chunk at a time, the last filled up


def test_twice_the_rows_are_twice_the_flops(ground: Ground):
    once, spec, _ = counted(FAMILIES[2], ground)
    logits = 6 * spec.width * spec.vocabulary * CHUNK
    assert counted(FAMILIES[2], ground, rows=8)[0] - logits == 2 * (once - logits)


def test_an_encoder_pays_for_outputs_where_it_guesses(ground: Ground):
    found, spec, length = counted(ENCODER, ground)
    bare = count.training_flops(replace(spec, outputs=()), length) * B * length
    guesses, rest = divmod(found - bare - 6 * spec.width * spec.vocabulary * SPARSE_CHUNK, 6 * spec.width**2)
    assert rest == 0 and 0.1 < guesses / (B * length) < 0.2  # the dense layer is computed at the hidden places alone


def test_two_stacks(ground: Ground):
    found, spec, source = counted(FIRST, ground)
    target = amount(T).target
    each = count.forward_flops(replace(spec, outputs=()), target, source)
    bare = 3 * B * (each["encoder"] * source + each["decoder"] * target)
    assert found == bare + 6 * spec.width * spec.vocabulary * B * target


def test_half_the_depth_is_about_half_the_cost(ground: Ground):
    whole, half = counted(FIRST, ground)[0], counted(TABLE["half-depth", "denoising"], ground)[0]
    assert 0.45 < half / whole < 0.6  # the table's products are not halved
    assert counted(TABLE["shared", "denoising"], ground)[0] == whole  # sharing weights saves none
