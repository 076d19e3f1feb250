"""Requests that come, go and end in one running batch, each against itself alone."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ModelError
from amauta.decode import feed
from amauta.decode.engine import engine as module
from amauta.decode.engine.engine import Engine
from amauta.decode.generate import generate, stream
from amauta.decode.sample import Generated
from amauta.decode.settings import Sampling
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.decode.toy import Markov, word_bytes

V = 26


def model_of(dtype=torch.float32, **changes):
    spec = Spec(vocabulary=V, context=60, width=32, layers=2, heads=4, kv_heads=2, init_std=0.3, **changes)
    return Transformer.create(spec, 3).eval().to(dtype)


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, V - 1), min_size=1, max_size=34),
        st.builds(
            Sampling, max_tokens=st.integers(1, 12), temperature=st.sampled_from([0.0, 0.8, 1.3]),
            top_k=st.sampled_from([0, 3]), repetition_penalty=st.sampled_from([1.0, 1.4]), seed=st.integers(0, 99),
            stop=st.sampled_from([(), ("a",), ("bc", "d")]), no_repeat_ngram_size=st.sampled_from([0, 2]),
        ),
        st.integers(0, 6),  # the step at which it comes
        st.integers(0, 2),  # its priority
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def mixed(model, requests, rows, **given):
    """What each request gets when all run together, coming at their times."""
    engine = Engine(model, rows=rows, stop_ids={7}, token_bytes=word_bytes, **given)
    results, numbers, clock = {}, {}, 0
    while len(numbers) < len(requests) or not engine.idle:
        for i, (prompt, one, comes, priority) in enumerate(requests):
            if i not in numbers and comes <= clock:
                numbers[i] = engine.submit(prompt, one, priority=priority)
                results[numbers[i]] = Generated()
        for step in engine.step():
            results[step.row].add(step)
        clock += 1
    return [results[numbers[i]] for i in range(len(requests))], engine


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25, deadline=None)
@given(requests=REQUESTS, rows=st.integers(1, 4))
def test_a_request_gets_in_any_mixture_what_it_gets_alone(dtype, requests, rows):
    model = model_of(dtype)
    together, _ = mixed(model, requests, rows)
    for (prompt, one, _, _), found in zip(requests, together, strict=True):
        [alone] = generate(model, [prompt], [one], stop_ids={7}, token_bytes=word_bytes)
        assert dataclasses.replace(found, seconds=0) == dataclasses.replace(alone, seconds=0)  # to the last bit


@settings(max_examples=15, deadline=None)
@given(requests=REQUESTS, rows=st.integers(1, 3))
def test_without_the_native_step_too(requests, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "native_step", lambda model: None)
        model = model_of()
        together, _ = mixed(model, requests, rows)
        for (prompt, one, _, _), found in zip(requests, together, strict=True):
            [alone] = generate(model, [prompt], [one], stop_ids={7}, token_bytes=word_bytes, cached=False)
            assert (found.ids, found.text, found.finish) == (alone.ids, alone.text, alone.finish)
            assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_a_prompt_that_begins_alike_is_read_once_and_gives_the_same_bits(monkeypatch, native):
    monkeypatch.setattr(module, "BLOCK", 8)
    monkeypatch.setattr(feed, "BLOCK", 8)
    monkeypatch.setattr(module, "TOGETHER", 2)
    monkeypatch.setattr(feed, "TOGETHER", 2)
    if not native:
        monkeypatch.setattr(feed, "native_step", lambda model: None)
    model, one = model_of(), Sampling(temperature=0, max_tokens=5)
    shared = torch.randint(V, (20,), generator=torch.Generator().manual_seed(0)).tolist()
    requests = [(shared + [tail] * 3, one, 0, 0) for tail in (1, 2, 3)]
    reusing, engine = mixed(model, requests, 2)
    plain, other = mixed(model, requests, 2, reuse=False)
    assert (engine.reused_tokens, engine.read_tokens) == (32, 69 - 32)
    assert (other.reused_tokens, other.read_tokens) == (0, 69)
    for found, wanted in zip(reusing, plain, strict=True):
        assert found.ids == wanted.ids
        assert found.logprobs == (wanted.logprobs if native else pytest.approx(wanted.logprobs, abs=1e-5))


def test_several_samples_of_one_prompt_read_it_once(monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2)
    model, prompt = model_of(), [3, 1, 4, 1, 5, 9, 2, 6]
    requests = [(prompt, Sampling(max_tokens=4, seed=seed), 0, 0) for seed in range(5)]
    found, engine = mixed(model, requests, 2)
    assert (engine.read_tokens, engine.reused_tokens) == (8, 32)
    for one, plain in zip(found, mixed(model, requests, 2, reuse=False)[0], strict=True):
        assert (one.ids, one.logprobs) == (plain.ids, plain.logprobs)
    assert len({tuple(one.ids) for one in found}) > 1


def test_a_request_is_cancelled_and_leaves_nothing():
    engine = Engine(model_of(), rows=1)
    first = engine.submit([1, 2], Sampling(max_tokens=50))
    second = engine.submit([3], Sampling(max_tokens=2, temperature=0))
    assert [step.row for step in engine.step()] == [first]
    engine.cancel(first)
    engine.cancel(99)
    assert [step.row for step in engine.run()] == [second, second]
    assert engine.idle and (engine.running, engine.waiting) == (0, 0)


def test_a_more_urgent_request_takes_the_place_and_the_other_goes_on_as_if_nothing_had_been():
    model, long = model_of(), Sampling(max_tokens=9, seed=4)
    [alone] = generate(model, [[5, 6]], [long])
    engine = Engine(model, rows=1)
    slow, found, order = engine.submit([5, 6], long), Generated(), []
    for turn in range(40):
        if turn == 3:
            engine.submit([1], Sampling(max_tokens=4), priority=1)
        for step in engine.step():
            order.append(step.row)
            if step.row == slow:
                found.add(step)
    assert order == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert (found.ids, found.logprobs) == (alone.ids, alone.logprobs)


def test_broken_logits_end_their_request_and_the_others_go_on():
    class Looked(Markov):
        def logits(self, hidden):
            return self.table[hidden.argmax(-1)]  # a product would spread what is no number over all rows

    table = torch.zeros(4, 4)
    table[2, 1] = torch.nan  # after token 2 nothing is a number
    good, bad, late = generate(Looked(table), [[0], [2], [1]], [Sampling(max_tokens=3, bias_ids=("2=-100",))] * 3)
    assert (bad.finish, bad.ids) == ("failed", []) and "Row 1 of 1" in str(bad.error)
    assert len(good.ids) == len(late.ids) == 3 and good.finish == late.finish == "length"


def test_a_request_may_be_given_so_many_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    engine = Engine(model_of(), rows=2)
    engine.submit([1], Sampling(max_tokens=30), seconds=5.0)
    engine.submit([1], Sampling(max_tokens=9))
    finishes = {}
    while not engine.idle:
        now[0] += 2.0
        finishes |= {step.row: (step.finish, now[0]) for step in engine.step() if step.finish}
    assert finishes == {0: ("time", 6.0), 1: ("length", 18.0)}


def test_a_prompt_that_no_slot_can_hold_is_refused():
    engine = Engine(model_of(), rows=1, slots=8)
    with pytest.raises(ModelError, match="9 tokens.*8"):
        engine.submit([1] * 9, Sampling())
    engine.submit([1] * 8, Sampling(max_tokens=3))
    assert [step.finish for step in engine.run()] == ["context"]


def test_whoever_stops_listening_stops_the_work():
    model = Markov(torch.zeros(4, 4))
    steps = stream(model, [[0], [1]], [Sampling(max_tokens=50)] * 2)
    next(steps)
    passes = len(model.passes)
    steps.close()
    assert len(model.passes) == passes <= 2


def test_watching_tells_every_choice():
    table = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 5.0], [3.0, 1.0, 0.0]])
    seen = []
    [found] = generate(Markov(table), [[0]], [Sampling(max_tokens=3, top_k=2, temperature=0.5, seed=1)],
                       watch=seen.append)  # fmt: skip
    assert [choice.id for choice in seen] == found.ids
    assert [choice.logprob for choice in seen] == found.logprobs
    for choice, before in zip(seen, [0, *found.ids], strict=False):
        assert torch.equal(choice.logits, table[before])
        assert [name for name, _ in choice.stages] == ["temperature", "top_k"]
        assert torch.equal(choice.stages[0][1], table[before] / 0.5)
        assert int(choice.stages[1][1].isfinite().sum()) == 2 or before == 1
