import dataclasses
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from amauta.base.errors import ModelError
from amauta.decode.generate import generate, stream
from amauta.decode.sample import Row, choose, fit, invert
from amauta.decode.settings import Sampling, prompt_room, spread
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.decode.toy import Markov, word_bytes

GREEDY = Sampling(temperature=0, max_tokens=4)
# a -> b .5, c .4, d .1; b -> e .4, g .35, h .25; c -> f .9, i .1; the others stay where they are
TREE = {"a": {"b": 0.5, "c": 0.4, "d": 0.1}, "b": {"e": 0.4, "g": 0.35, "h": 0.25}, "c": {"f": 0.9, "i": 0.1}}


def tree_model(context=64):
    table = torch.full((9, 9), -torch.inf)
    for i in range(9):
        row = TREE.get(chr(97 + i), {chr(97 + i): 1.0})
        for name, p in row.items():
            table[i, ord(name) - 97] = math.log(p)
    return Markov(table.nan_to_num(neginf=-1e9), context)


def random_model(seed=0, context=24, **changes):
    """A small random transformer whose distributions are far from flat, so that nothing hangs on rounding."""
    spec = Spec(vocabulary=40, context=context, width=32, layers=2, heads=4, kv_heads=2, init_std=0.4, **changes)
    return Transformer.create(spec, seed)


def test_greedy_follows_the_likeliest_branch():
    [result] = generate(tree_model(), [[0]], Sampling(temperature=0, max_tokens=2), token_bytes=word_bytes)
    assert result.text == "be" and result.finish == "length"
    assert math.exp(sum(result.logprobs)) == pytest.approx(0.20)
    assert result.sampled_logprobs == [0.0, 0.0]  # a greedy choice is certain


@pytest.mark.parametrize("one", [Sampling(), Sampling(temperature=0.7, top_k=2), Sampling(top_p=0.6, min_p=0.3)])
def test_samples_follow_the_exact_distribution(one):
    n = 6000
    results = generate(tree_model(), [[0]] * n, dataclasses.replace(one, max_tokens=2, seed=3), token_bytes=word_bytes)

    def filtered(row):  # the same filters on a dictionary, by their definitions
        weights = {name: p ** (1 / one.temperature) for name, p in row.items()}
        ranked = sorted(weights, key=lambda name: -weights[name])[: one.top_k or None]
        total, kept, mass = sum(weights[name] for name in ranked), [], 0.0
        for name in ranked:
            if mass >= one.top_p - 1e-9:
                break
            kept.append(name)
            mass += weights[name] / total
        kept = [name for name in kept if weights[name] >= one.min_p * weights[kept[0]]]
        total = sum(weights[name] for name in kept)
        return {name: weights[name] / total for name in kept}

    expected = {}
    for first, p in filtered(TREE["a"]).items():
        for second, q in filtered(TREE.get(first, {first: 1.0})).items():
            expected[first + second] = p * q
    counts = Counter(result.text for result in results)
    assert set(counts) == set(expected)
    names = sorted(expected)
    assert chisquare([counts[x] for x in names], [expected[x] * n for x in names]).pvalue > 1e-3
    for result in results[:50]:
        assert math.exp(sum(result.sampled_logprobs)) == pytest.approx(expected[result.text], rel=1e-4)
        plain = TREE["a"][result.text[0]] * TREE.get(result.text[0], {result.text[1]: 1.0})[result.text[1]]
        assert math.exp(sum(result.logprobs)) == pytest.approx(plain, rel=1e-4)


def test_inverting_the_cumulative_distribution_at_its_edges():
    logits = torch.tensor([[0.25, 0.5, 0.25, 0.0]]).log().expand(5, 4)
    uniform = torch.tensor([0.0, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert invert(logits, uniform).tolist() == [0, 1, 1, 2, 2]  # never the last, which has no mass


ROWS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 39), min_size=1, max_size=24),
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.7, 1.0]),
            top_k=st.sampled_from([0, 5]),
            top_p=st.sampled_from([1.0, 0.8]),
            repetition_penalty=st.sampled_from([1.0, 1.2]),
            max_tokens=st.integers(1, 12),
            seed=st.integers(0, 99),
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=25)
@given(rows=ROWS)
def test_a_row_gets_in_a_batch_what_it_gets_alone_and_without_cache(rows):
    model = random_model()
    prompts, wanted = [row[0] for row in rows], [row[1] for row in rows]
    together = generate(model, prompts, wanted, stop_ids={7})
    for prompt, one, result in zip(prompts, wanted, together, strict=True):
        for cached in (True, False):
            [alone] = generate(model, [prompt], [one], stop_ids={7}, cached=cached)
            assert alone.ids == result.ids and alone.finish == result.finish
            assert alone.logprobs == pytest.approx(result.logprobs, abs=1e-4)
            assert alone.sampled_logprobs == pytest.approx(result.sampled_logprobs, abs=1e-4)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_logprobs_are_those_of_the_whole_sequence(positions):
    model = random_model(seed=1, positions=positions)
    [result] = generate(model, [[3, 4, 5]], Sampling(max_tokens=15, seed=2))
    assert result.logprobs == pytest.approx(model.score([3, 4, 5, *result.ids])[2:].tolist(), abs=1e-4)


def test_the_seed_decides_and_prompts_of_one_call_differ():
    model = random_model()
    one = Sampling(max_tokens=12, temperature=1.5)
    first = [r.ids for r in generate(model, [[1]] * 3, one)]
    assert first == [r.ids for r in generate(model, [[1]] * 3, one)]
    assert len({tuple(ids) for ids in first}) == 3
    [third] = generate(model, [[1]], dataclasses.replace(one, seed=2))
    assert third.ids == first[2]  # prompt i has seed + i
    assert [s.seed for s in spread(one, 3)] == [0, 1, 2]


def test_stop_tokens_stop_texts_and_the_context_end_a_row():
    model = tree_model(context=5)
    kinds = {
        "stop": dict(stop_ids={4}),
        "stop-string": dict(one=dataclasses.replace(GREEDY, stop=("ee",))),
        "length": {},
    }
    found = {}
    for kind, change in kinds.items():
        [r] = generate(
            model, [[0]], change.get("one", GREEDY), stop_ids=change.get("stop_ids", ()), token_bytes=word_bytes
        )
        assert r.finish == kind
        found[kind] = (r.ids, r.text)
    assert found == {"stop": ([1, 4], "b"), "stop-string": ([1, 4, 4], "b"), "length": ([1, 4, 4, 4], "beee")}
    [full] = generate(model, [[0, 0, 0]], dataclasses.replace(GREEDY, max_tokens=99))
    assert full.finish == "context" and full.ids == [1, 4, 4]  # 5 tokens can be read, so a sixth can be written
    [brim] = generate(model, [[0] * 5], GREEDY)
    assert brim.finish == "context" and brim.ids == [1]


def test_ended_rows_cost_nothing_once_half_have_ended():
    model = tree_model()
    model.passes.clear()
    lengths = [1, 1, 1, 8]
    results = generate(model, [[0, 0]] * 4, [Sampling(temperature=0, max_tokens=n) for n in lengths])
    assert [len(r.ids) for r in results] == lengths
    assert model.passes == [(4, 2)] + [(1, 1)] * 7


def test_a_prompt_beyond_the_context_is_refused_or_cut_and_counted():
    model = random_model(context=8)
    with pytest.raises(ModelError, match=r"Prompt 2 of 2 has 9 tokens; the model reads at most 8"):
        generate(model, [[1], list(range(9))], GREEDY)
    one = Sampling(temperature=0, max_tokens=3, truncate="left")
    fitted, dropped = fit(model, [list(range(9)), [1, 2]], [one, one])
    assert fitted == [[0, 5, 6, 7, 8], [1, 2]] and dropped == [4, 0]  # the first and the newest stay, 3 are free
    assert prompt_room(Sampling(max_tokens=99), 8) == 4
    cut, _ = generate(model, [list(range(9)), [1, 2]], one)
    [same] = generate(model, [[0, 5, 6, 7, 8]], one)
    assert cut.dropped == 4 and cut.ids == same.ids and cut.finish == "length"


@pytest.mark.parametrize("id", [40, -1, 1.0, True, "a"])
def test_an_id_that_the_model_does_not_know_is_named_before_it_is_fed(id):
    with pytest.raises(ModelError, match=r"Row 2 of 2, position 1: .*the model knows 0 to 39"):
        generate(random_model(), [[1], [39, id]], GREEDY)


def test_an_empty_prompt_and_broken_weights_are_named():
    with pytest.raises(ModelError, match="Prompt 2 of 2 has no tokens"):
        generate(tree_model(), [[0], []], GREEDY)
    logits = torch.zeros(3, 4)
    logits[1, 2] = torch.nan
    with pytest.raises(ModelError, match="Row 2 of 3"):
        choose(logits, [Row(i, [0], GREEDY) for i in range(3)])


def test_dropout_does_not_reach_generation_and_comes_back():
    model = random_model(dropout=0.5).train()
    first = generate(model, [[1, 2]], Sampling(temperature=0, max_tokens=8))
    assert first[0].ids == generate(model, [[1, 2]], Sampling(temperature=0, max_tokens=8))[0].ids
    assert model.training


def test_closing_the_stream_ends_the_work_and_restores_the_model():
    model = random_model().train()
    steps = stream(model, [[1]], [Sampling(max_tokens=20)])
    next(steps)
    assert not model.training
    steps.close()
    assert model.training


def test_steps_joined_are_the_result():
    model, prompts, ended = random_model(), [[1], [2, 3]], {}
    names = {"token_bytes": lambda id: b"%d," % id}
    results = generate(model, prompts, Sampling(max_tokens=6), on_end=ended.__setitem__, **names)
    assert ended == dict(enumerate(results))
    steps = list(stream(model, prompts, spread(Sampling(max_tokens=6), 2), **names))
    for row, result in enumerate(results):
        own = [step for step in steps if step.row == row]
        assert [step.id for step in own] == result.ids
        assert "".join(step.text for step in own) == result.text == "".join(f"{id}," for id in result.ids)
        assert [step.finish for step in own] == [None] * (len(own) - 1) + [result.finish]


def test_a_model_that_only_offers_next_logprobs_generates():
    class Uniform:
        def next_logprobs(self, prefix):
            return torch.full((4,), math.log(0.25)).index_fill(0, torch.tensor(prefix[-1:]), math.log(0.26)).numpy()

    [result] = generate(Uniform(), [[2]], GREEDY)
    assert result.ids == [2, 2, 2, 2]


def test_a_prefix_model_reads_its_prompt_in_both_directions():
    model = random_model(prefix_lm=True)
    prompts, one = [[1, 2, 3, 4], [5, 6, 7]], Sampling(temperature=0, max_tokens=6)
    found = generate(model, prompts, one)
    plain = generate(model, prompts, one, cached=False)
    causal = generate(random_model(), prompts, one)
    for prompt, got, slow, other in zip(prompts, found, plain, causal, strict=True):
        ids = list(prompt)
        for id, logprob in zip(got.ids, got.logprobs, strict=True):
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), prefix=torch.tensor([len(prompt)]))
                logprobs = model.logits(hidden)[0, -1].log_softmax(-1)
            assert id == int(logprobs.argmax()) and logprob == pytest.approx(float(logprobs[id]), abs=1e-4)
            ids.append(id)
        assert slow.ids == got.ids and slow.logprobs == pytest.approx(got.logprobs, abs=1e-4)
        assert other.logprobs != pytest.approx(got.logprobs, abs=1e-2)
