from itertools import permutations

import pytest

from amauta.base.errors import ConfigError, ModelError
from amauta.prompt.budget import fit
from amauta.prompt.demonstrations import choose, has, usual
from amauta.prompt.task import Example, Task
from amauta.prompt.template import LINES, compose
from tests.prompt.scripted import Scripted

POOL = tuple(Example(f"q{i}", f"a{i}", {"reasoning": "r"} if i % 2 else {}) for i in range(10))
TASK = Task("t", examples=lambda count, seed: [], demonstrations=POOL, template=LINES)


def test_one_seed_chooses_the_set_and_the_other_its_order():
    first = choose(TASK, 4, demonstration_seed=1, order_seed=1)
    assert first == choose(TASK, 4, demonstration_seed=1, order_seed=1)
    assert [POOL[place] for place in first.places] == list(first.examples)
    assert len(set(first.places)) == 4
    orders = {choose(TASK, 4, demonstration_seed=1, order_seed=seed).places for seed in range(200)}
    assert orders <= set(permutations(first.places)) and len(orders) == 24  # every order of the same set
    sets = {frozenset(choose(TASK, 4, demonstration_seed=seed).places) for seed in range(40)}
    assert len(sets) > 20


def test_every_demonstration_is_as_likely():
    counts = [0] * 10
    for seed in range(2000):
        for place in choose(TASK, 3, demonstration_seed=seed).places:
            counts[place] += 1
    assert all(500 < count < 700 for count in counts)  # 600 expected, 5 standard deviations are 102


def test_only_suitable_ones():
    for seed in range(20):
        assert all(place % 2 for place in choose(TASK, 3, demonstration_seed=seed, suits=has("reasoning")).places)
    assert usual(TASK, 8, has("reasoning")) == 5 and usual(TASK, 3, has("reasoning")) == 3
    with pytest.raises(ConfigError) as caught:
        choose(TASK, 6, suits=has("reasoning"))
    assert caught.value.key == "prompt.too-few-demonstrations" and caught.value.fields["seen"] == 5


@pytest.mark.parametrize(
    ("context", "dropped"), [(24, 0), (23, 1), (18, 1), (17, 2), (12, 2), (11, None)], ids=lambda value: str(value)
)
def test_demonstrations_are_dropped_from_the_front_until_all_fits(context, dropped):
    """Two demonstrations of 6 characters with what parts them, a question of 3, an answer of at most 9."""
    model = Scripted({}, context=context)
    prompt = compose(LINES, Example("zz", ""), [Example("q1", "a"), Example("q2", "b")])
    assert prompt.text() == "q1\na\n\nq2\nb\n\nzz\n"
    if dropped is None:
        with pytest.raises(ModelError) as caught:
            fit(model, prompt, 9, chat=False)
        assert caught.value.key == "prompt.too-long"
        assert caught.value.fields == {"length": 3, "answer": 9, "context": 11}
        return
    fitted = fit(model, prompt, 9, chat=False)
    assert fitted.dropped == dropped
    assert model.tokenizer.decode(fitted.ids) == ["q1\na\n\nq2\nb\n\nzz\n", "q2\nb\n\nzz\n", "zz\n"][dropped]
    assert len(fitted.prompt.shown) == 2 - dropped


def test_the_instruction_stays_and_chats_drop_whole_turns():
    model = Scripted({}, context=32, chat=True)
    prompt = compose(LINES, Example("zz", ""), [Example("q1", "a"), Example("q2", "b")], instruction="Do.")
    fitted = fit(model, prompt, 10, chat=True)
    assert fitted.dropped == 1
    assert model.tokenizer.decode(fitted.ids) == ("<user>Do.\n\nq2<turn><assistant>b<turn><user>zz<turn><assistant>")


def test_no_limit_and_an_encoder_apart():
    prompt = compose(LINES, Example("zz", ""))
    assert fit(Scripted({}, context=None), prompt, 10**9, chat=False).dropped == 0
    model = Scripted({}, context=3)
    model.kind = "encoder-decoder"  # its answer has another stack
    model.tokenizer.around = lambda text: ([ord(c) for c in text], None)
    assert len(fit(model, prompt, 100, chat=False).ids) == 3
