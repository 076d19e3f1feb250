"""The systems differ in what they are named for, and read the same text."""

import pytest

from amauta.data.corrupt import Runs
from amauta.models.count import parameters, parts
from amauta.train.manners import check_able
from amauta.train.material import laid_out, text_store
from amauta.yardstick.ground import Ground
from amauta.yardstick.systems import ARCHITECTURES, FAMILIES, PUBLISHED_GLUE, TABLE, WITH_PAIRS, row_length
from tests.yardstick.conftest import small

SYSTEMS = (*FAMILIES, WITH_PAIRS, *TABLE.values())


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_each_can_learn_its_objective(system, ground: Ground):
    check_able(system.objective, system.spec(small(), ground.opened()), system.name)


@pytest.mark.parametrize("system", TABLE.values(), ids=lambda system: system.name)
def test_all_of_the_table_read_rows_with_the_same_text(system, ground: Ground):
    settings, tokenizer = small(), ground.opened()
    spec = system.spec(settings, tokenizer)
    length = row_length(system.objective, spec.kind, settings.length)
    ids = tokenizer.encode_many(ground.texts(ground.train)[:50])
    if system.objective.objective == "causal":
        assert length == settings.length
        return
    made = laid_out(system.objective, text_store(ids, [0] * len(ids), tokenizer), tokenizer, spec, length, 0)
    assert isinstance(made.units, Runs) and made.units.size == settings.length


def test_sizes_are_p_and_2p(ground: Ground):
    """Raffel et al. 2020, section 3.2.2: what is not embeddings is 2P, P and P for two stacks, shared ones and half of
    the layers; the attention between the stacks is over and above."""
    size = {}
    for name in ARCHITECTURES:
        spec = TABLE[name, "lm"].spec(small(layers=4), ground.opened())
        found = parts(spec)
        size[name] = parameters(spec) - found["embedding"] - found.get("decoder.cross", 0)
    assert size["encoder-decoder"] == pytest.approx(2 * size["decoder"], rel=0.02)
    for name in ("shared", "half-depth", "prefix-lm"):
        assert size[name] == pytest.approx(size["decoder"], rel=0.02)


def test_the_published_table_is_whole():
    assert set(PUBLISHED_GLUE) == set(TABLE) and len(TABLE) == 10
    assert max(PUBLISHED_GLUE, key=PUBLISHED_GLUE.__getitem__) == ("encoder-decoder", "denoising")


def test_next_sentences_are_all_that_sets_the_two_encoders_apart():
    one, other = FAMILIES[0].objective, WITH_PAIRS.objective
    assert (one.pair, other.pair) == ("none", "next")
    assert {**vars(one), "pair": "next"} == vars(other)
