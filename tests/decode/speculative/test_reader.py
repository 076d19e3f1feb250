import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.decode.speculative.reader import Reader
from amauta.models.ngram import NGram
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

CONTEXT, V = 12, 20
IDS = st.integers(0, V - 1)


def small(**changes):
    spec = Spec(vocabulary=V, context=CONTEXT, width=16, layers=2, heads=2, init_std=0.4, **changes)
    return Transformer.create(spec, 3)


MODELS = {
    "rotary": small(),
    "learned": small(positions="learned"),
    "windowed": small(window=3),
    "ngram": NGram.train([[0, 1, 2, 3, 1, 2, 4, 19]], size=V, begin=0, order=3),
}


@st.composite
def histories(draw):
    """Prompts, then rounds: for each row that is still there, how much it forgets, what it adds, and of how many
    tokens at most the logits are asked for (None: of none, and nothing changes)."""
    prompts = draw(st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=4))
    change = st.tuples(st.integers(0, 6), st.lists(IDS, max_size=4), st.sampled_from([None, 1, 4]))
    rounds = draw(st.lists(st.lists(change, min_size=len(prompts), max_size=len(prompts)), max_size=5))
    ends = draw(st.lists(st.integers(0, 6), min_size=len(prompts), max_size=len(prompts)))
    return prompts, rounds, ends


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cached", [True, False])
@settings(deadline=None, max_examples=25)
@given(story=histories())
def test_reading_on_gives_what_reading_all_gives(name, cached, story):
    model = MODELS[name]
    prompts, rounds, ends = story

    def whole(ids, last):
        if name == "ngram":
            return torch.stack(
                [torch.as_tensor(model.next_logprobs(ids[: len(ids) - last + 1 + n])) for n in range(last)]
            )
        return model.logits(model(torch.tensor([ids])))[0, -last:]

    with torch.inference_mode():
        reader = Reader(model, prompts, CONTEXT, cached=cached)
        for first, prompt in zip(reader.first, prompts, strict=True):
            torch.testing.assert_close(first, whole(prompt, 1)[0].float(), atol=1e-4, rtol=1e-4)
        texts = [list(prompt) for prompt in prompts]
        for number, changes in enumerate(rounds):
            there = [row for row in range(len(prompts)) if ends[row] > number]
            if not there:
                break
            reader.keep(there)
            asked = []
            for row in there:
                forgotten, added, most = changes[row]
                grown = (texts[row][: max(1, len(texts[row]) - forgotten)] + added)[:CONTEXT]
                if most:
                    texts[row] = grown
                    asked.append((row, grown, max(1, min(len(added), len(grown), most))))
            if not asked:
                continue
            for (_, ids, last), found in zip(asked, reader.read(*zip(*asked, strict=True)), strict=True):
                torch.testing.assert_close(found, whole(ids, last).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_known_is_not_read_again(cached):
    with torch.inference_mode():
        reader = Reader(MODELS["rotary"], [[1, 2, 3], [4]], CONTEXT, cached=cached)
        fed, extend = [], reader.feed.extend
        reader.feed.extend = lambda ids: fed.append(ids) or extend(ids)
        reader.read([0, 1], [[1, 2, 3, 5, 6], [4, 7]], [2, 2])
        reader.read([0, 1], [[1, 2, 3, 5, 8], [4, 7, 9]], [1, 1])
        reader.read([1], [[4, 7, 8]], [1])
        reader.keep([1])
        reader.read([1], [[4, 7, 8, 9]], [1])
    assert fed == [[[5, 6], [4, 7]], [[8], [9]], [[8], [8]], [[9]]]
