import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from amauta.base.errors import ModelError
from amauta.decode.filters.filters import apply_filters
from amauta.decode.generate import generate as plain
from amauta.decode.settings import Sampling
from amauta.decode.speculative.generate import generate, stream
from amauta.decode.speculative.settings import Drafting
from amauta.models import exchange
from amauta.models.ngram import NGram
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.decode.constrain.toys import Toy, start
from tests.decode.speculative.test_drafts import Odd, chain
from tests.decode.test_sample import random_model
from tests.decode.toy import Markov, word_bytes

GREEDY = Sampling(temperature=0, max_tokens=4)
LOOKUP, NGRAM, MODEL = Drafting(draft="lookup"), Drafting(draft="ngram"), Drafting(draft="some")


TABLE = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.1, 0.5], [0.45, 0.3, 0.25]]).log()
OTHER = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.4, 0.4], [0.1, 0.3, 0.6]]).log()


def joint(model, prompt, one, tokens, constraint=None):
    """The chance of every answer, token by token by its definition."""
    found = {}
    size = model.table.shape[1]
    for ids in itertools.product(range(size), repeat=tokens):
        chance, text = 1.0, list(prompt)
        for id in ids:
            logits = model.table[text[-1]][None].detach()
            if constraint is not None:
                logits = logits.masked_fill(~constraint(text), -torch.inf)
            drawn_from = apply_filters(logits, [text], [one], prompt_lengths=[len(prompt)])
            chance *= drawn_from.softmax(-1)[0, id].item()
            text.append(id)
        if chance > 0:
            found[ids] = chance
    return found


def fits(results, expected):
    """Whether the answers are draws from ``expected``: p of the chi-square test, cells of few answers put together."""
    counts = Counter(tuple(result.ids) for result in results)
    assert set(counts) <= set(expected)
    cells = sorted(expected, key=expected.get)
    rare = [ids for ids in cells if expected[ids] * len(results) < 5]
    often = [ids for ids in cells if ids not in rare]
    seen = [counts[ids] for ids in often] + ([sum(counts[ids] for ids in rare)] if rare else [])
    wanted = [expected[ids] for ids in often] + ([sum(expected[ids] for ids in rare)] if rare else [])
    return chisquare(seen, [share / sum(wanted) * len(results) for share in wanted]).pvalue


N, PROMPT = 900, [0, 1, 2, 0, 1]
SETTINGS = [
    Sampling(),
    Sampling(temperature=0.7, top_k=2),
    Sampling(top_p=0.8, repetition_penalty=1.4),
    Sampling(frequency_penalty=0.7, temperature=1.3),
]


@pytest.mark.parametrize("one", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("draft", ["lookup", "ngram", "other", "same"])
def test_answers_follow_the_models_own_distribution(one, draft):
    """Three tokens together: the first comes from the prompt's pass, the others are proposed, fall, follow."""
    model = Markov(TABLE)
    given = {"other": Markov(OTHER), "same": Markov(TABLE)}.get(draft)
    one = dataclasses.replace(one, max_tokens=3, seed=11)
    results = generate(model, [PROMPT] * N, one, Drafting(draft=draft, draft_tokens=2), draft=given)
    assert fits(results, joint(model, PROMPT, one, 3)) > 1e-3
    assert sum(result.acceptance.accepted for result in results) > N / 50


def test_an_ngram_model_drafts_for_a_model_and_the_other_way_round():
    counted = NGram.train([[0, 1, 2, 1, 1, 2, 1], [0, 2, 2, 1]], size=3, begin=0, order=3)
    one = Sampling(max_tokens=3)
    assert fits(generate(Markov(TABLE), [[1]] * N, one, MODEL, draft=counted), joint(Markov(TABLE), [1], one, 3)) > 1e-3
    results = generate(counted, [[1]] * N, one, MODEL, draft=Markov(TABLE))
    chances = {}
    for ids in itertools.product([1, 2], repeat=3):  # 0, which begins a document, has none
        chances[ids] = torch.tensor(counted.score([1, *ids])).sum().exp().item()
    assert fits(results, chances) > 1e-3


def test_a_constraint_restricts_both_and_the_draft_need_not_know():
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
    model, draft = Markov(table), Markov(table.flip(0))
    model.table.data[:, 5] = -1e9  # after which Odd is stuck
    one = Sampling(max_tokens=3)

    def odd(text):
        return torch.tensor([id % 2 == 1 for id in range(8)])

    for drafting, other in ((LOOKUP, None), (NGRAM, None), (MODEL, draft)):
        prompts, constraints = [[1, 3, 7, 1, 3]] * N, [Odd() for _ in range(N)]
        results = generate(model, prompts, one, drafting, draft=other, constraints=constraints)
        assert fits(results, joint(model, prompts[0], one, 3, odd)) > 1e-3
        assert all(c.ids == r.ids for c, r in zip(constraints, results, strict=True))


def test_a_proposal_that_leads_to_a_dead_end_harms_nobody_unless_it_stands():
    model, draft = chain((0, 1), (1, 3), (3, 7), (7, 1)), chain((0, 1), (1, 5), (5, 5))
    for constraint in (Odd(), Odd(end=5)):
        [result] = generate(model, [[0]], GREEDY, MODEL, draft=draft, constraints=[constraint])
        assert result.ids == [1, 3, 7, 1] and result.finish == "length"
    stuck, other = generate(draft, [[0]] * 2, GREEDY, MODEL, draft=draft, constraints=[Odd(), Odd(end=5)])
    assert stuck.ids == [1, 5] and stuck.finish == "failed" and stuck.error.key == "constrain.stuck"
    assert other.ids == [1, 5] and other.finish == "stop" and other.error is None


class Letters(Toy):
    """With the one spelling that a constraint's forced text is given."""

    def encode(self, text):
        return [self.pieces.index(letter.encode()) for letter in text]


@pytest.mark.parametrize("form", [{"regex": "(ab|ba)+c"}, {"choice": ("abcab", "abcb", "ca")}, {"regex": "a+b"}])
@pytest.mark.parametrize("stops", [{0}, set()])
def test_a_real_constraint_gives_what_it_gives_without_a_draft(form, stops):
    letters = Letters("<|end|>", "a", "b", "c", "ab", "bc")
    random = torch.Generator().manual_seed(4)
    model, draft = (Markov(torch.randn(6, 6, generator=random).mul(2)) for _ in range(2))
    one, prompts = Sampling(temperature=0, max_tokens=9), [[1], [2, 3], [4, 5, 1, 2, 4]]

    def constraints():
        return [start(letters, stops, **form) for _ in prompts]

    expected = plain(model, prompts, one, stop_ids=stops, constraints=constraints())
    for drafting, other in ((LOOKUP, None), (NGRAM, None), (MODEL, draft), (MODEL, model)):
        results = generate(model, prompts, one, drafting, draft=other, stop_ids=stops, constraints=constraints())
        for result, alone in zip(results, expected, strict=True):
            same(result, alone)


def test_what_a_constraint_forces_is_written_in_few_passes():
    letters = Letters("<|end|>", "a", "b", "c")
    bound = [start(letters, {0}, choice=("abcabc", "ca"))]
    [result] = generate(chain((1, 1), size=4), [[1]], dataclasses.replace(GREEDY, max_tokens=9), LOOKUP,
                        stop_ids={0}, constraints=bound)  # fmt: skip
    assert result.ids == [1, 2, 3, 1, 2, 3] and result.finish == "stop"
    assert result.acceptance.passes == 1 and result.acceptance.accepted == 4  # a; then bcab, and c


def test_those_who_watch_see_what_they_see_without_a_draft():
    model, one = random_model(), Sampling(temperature=0, max_tokens=10, repetition_penalty=1.3, frequency_penalty=0.1)
    prompts = [[3, 4, 3], [5]]
    expected, seen = [], []
    plain(model, prompts, one, watch=expected.append)
    generate(model, prompts, one, MODEL, draft=near(1), watch=seen.append)
    assert len(seen) == 20
    for row in range(2):
        for ours, theirs in zip(*([c for c in all if c.row == row] for all in (seen, expected)), strict=True):
            assert ours.id == theirs.id and ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
            torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
            assert [name for name, _ in ours.stages] == ["repetition_penalty", "count_penalties"]
            for (_, after), (_, other) in zip(ours.stages, theirs.stages, strict=True):
                torch.testing.assert_close(after, other, atol=1e-4, rtol=1e-4)
    bound: list = []
    generate(ALONG, [[0]], GREEDY, LOOKUP, constraints=[Odd()], watch=bound.append)
    assert all([name for name, _ in choice.stages] == ["constraint"] for choice in bound) and len(bound) == 4
    assert all(choice.stages[0][1][::2].isneginf().all() for choice in bound)


def test_many_prompts_are_worked_on_some_at_a_time():
    model, one = random_model(), [Sampling(max_tokens=3 + n, temperature=n % 2, seed=n) for n in range(5)]
    prompts = [[n, 3, n] for n in range(5)]
    for drafting, draft in ((LOOKUP, None), (NGRAM, None), (MODEL, near(2))):
        together = generate(model, prompts, one, drafting, draft=draft)
        for some, all in zip(generate(model, prompts, one, drafting, draft=draft, rows=2), together, strict=True):
            same(some, all)
            assert some.seconds > 0


def test_a_prompt_that_does_not_fit_is_cut_and_counted():
    one = Sampling(temperature=0, max_tokens=3, truncate="left")
    model = random_model(context=8)
    [cut] = generate(model, [list(range(9))], one, LOOKUP)
    [expected] = plain(model, [list(range(9))], one)
    same(cut, expected)
    assert cut.dropped == expected.dropped == 4
    with pytest.raises(ModelError, match="has no tokens"):
        generate(model, [[]], one, LOOKUP)


@pytest.mark.parametrize("temperature", [0, 1])  # the chains are near certain either way
def test_bans_that_leave_nothing_are_met_only_by_the_text_itself(temperature):
    banned = dataclasses.replace(GREEDY, temperature=temperature, ban_ids=tuple(f"2 {id}" for id in range(8)))
    dead = chain((0, 1), (1, 2), (3, 3))
    [result] = generate(chain((0, 1), (1, 3), (3, 7), (7, 0)), [[0]], banned, MODEL, draft=dead)
    assert result.ids == [1, 3, 7, 0]
    [result] = generate(chain((0, 1), (1, 3), (3, 7), (7, 0)), [[1, 2, 5, 0]], banned, LOOKUP)  # guesses 2 5 0 1
    assert result.ids == [1, 3, 7, 0]
    good, failed, first = generate(dead, [[3], [0], [2]], banned, MODEL, draft=dead)
    assert good.finish == "length" and failed.ids == [1, 2] and first.ids == []
    assert failed.finish == first.finish == "failed" and failed.error.key == first.error.key == "sampling.nothing-left"


def test_acceptance_is_the_overlap_and_a_pass_gives_the_expected_tokens():
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.5, 0.3]).log()
    model, draft = Markov(p.expand(3, 3), 500), Markov(q.expand(3, 3), 500)
    results = generate(model, [[0]] * 30, Sampling(max_tokens=300), MODEL, draft=draft)
    total = [
        sum(getattr(r.acceptance, name) for r in results) for name in ("proposed", "examined", "accepted", "passes")
    ]
    assert total[2] / total[1] == pytest.approx(0.7, abs=0.02)
    assert 30 * 299 / total[3] == pytest.approx(2.7731, abs=0.1)
    assert total[0] > 3.9 * total[3]
    record = results[0].acceptance.record(MODEL, 300)
    assert record["acceptance_rate"] == results[0].acceptance.rate == record["accepted"] / record["examined"]
    assert record["tokens_per_pass"] == 299 / record["passes"] and record["draft"] == "some"


def same(one, other):
    assert one.ids == other.ids and one.finish == other.finish and one.text == other.text
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert one.sampled_logprobs == pytest.approx(other.sampled_logprobs, abs=1e-4)


def near(seed, **changes):
    """Agrees with ``random_model()`` often, not always."""
    model, noise = random_model(**changes), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=noise)
    return model


DRAFTS = {"lookup": None, "ngram": None, "near": near(1), "far": random_model(5), "same": random_model()}
ROWS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 39), min_size=1, max_size=24),
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.0, 0.7, 1.0]),
            top_k=st.sampled_from([0, 5]),
            repetition_penalty=st.sampled_from([1.0, 1.2]),
            frequency_penalty=st.sampled_from([0.0, 0.3]),
            no_repeat_ngram_size=st.sampled_from([0, 3]),
            max_tokens=st.integers(1, 16),
            seed=st.integers(0, 99),
        ),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@settings(deadline=None, max_examples=15)
@given(
    rows=ROWS,
    name=st.sampled_from(list(DRAFTS)),
    gamma=st.integers(1, 30),
    adapt=st.booleans(),
    cached=st.sampled_from([True, True, False]),
)
def test_greedy_is_plain_greedy_and_a_row_gets_what_it_gets_alone(positions, rows, name, gamma, adapt, cached):
    model = random_model(positions=positions)
    prompts, wanted = [row[0] for row in rows], [row[1] for row in rows]
    how = {"drafting": Drafting(draft=name, draft_tokens=gamma, draft_adapt=adapt), "draft": DRAFTS[name]}
    how |= {"stop_ids": {7}, "token_bytes": lambda id: b"%d," % id}
    together = generate(model, prompts, wanted, cached=cached, **how)
    for prompt, one, result in zip(prompts, wanted, together, strict=True):
        [alone] = generate(model, [prompt], [one], **how)
        same(result, alone)
        assert result.acceptance == alone.acceptance
        if one.temperature == 0:
            [expected] = plain(model, [prompt], [one], stop_ids={7}, token_bytes=how["token_bytes"])
            same(result, expected)


def test_logprobs_are_the_models_and_those_of_what_was_drawn_from():
    model, one = random_model(seed=1), Sampling(max_tokens=15, temperature=0.8, top_k=9, repetition_penalty=1.3, seed=2)
    for drafting, draft in ((LOOKUP, None), (MODEL, random_model(seed=2)), (MODEL, random_model(seed=1))):
        prompt = [3, 4, 5, 3, 4]
        [result] = generate(model, [prompt], one, drafting, draft=draft)
        text = [*prompt, *result.ids]
        assert result.logprobs == pytest.approx(model.score(text)[4:].tolist(), abs=1e-4)
        for n, id in enumerate(result.ids):
            logits = model.logits(model(torch.tensor([text[: 5 + n]])))[:, -1].detach()
            drawn_from = apply_filters(logits, [text[: 5 + n]], [one], prompt_lengths=[5]).log_softmax(-1)[0]
            assert result.sampled_logprobs[n] == pytest.approx(drawn_from[id].item(), abs=1e-4)


ALONG = chain((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 0))


def sizes(model):
    """Tokens of each pass since the last call."""
    fed = [shape[1] for shape in model.passes]
    model.passes.clear()
    return fed


@pytest.mark.parametrize("gamma", [1, 3, 50])
def test_stop_conditions_in_the_midst_of_a_draft(gamma):
    drafting = Drafting(draft="some", draft_tokens=gamma)
    cases = [
        (dict(), dict(stop_ids={3})),
        (dict(stop_ids=(5,)), dict(stop_ids={6})),
        (dict(stop=("de",)), dict()),
        (dict(stop=("d", "zz")), dict()),
        (dict(max_tokens=1), dict()),
        (dict(max_tokens=6), dict()),
        (dict(max_tokens=99), dict()),
    ]
    for change, more in cases:
        one = dataclasses.replace(GREEDY, **{"max_tokens": 12, **change})
        if one.max_tokens == 99:
            assert ALONG.spec.context == 64  # which is reached
        [expected] = plain(ALONG, [[7, 0]], one, token_bytes=word_bytes,
                           **more)  # fmt: skip
        ALONG.passes.clear()
        [result] = generate(ALONG, [[7, 0]], one, drafting, draft=chain(*[(n, (n + 1) % 8) for n in range(8)]),
                            token_bytes=word_bytes, **more)  # fmt: skip
        same(result, expected)
        assert max(sizes(ALONG)) <= max(2, min(gamma + 1, one.max_tokens - 1))


def test_each_pass_checks_what_was_guessed_and_the_guesses_adapt():
    same_way = chain(*[(n, (n + 1) % 8) for n in range(8)])
    one = Sampling(temperature=0, max_tokens=20)
    ALONG.passes.clear()
    [result] = generate(ALONG, [[0]], one, Drafting(draft="some", draft_tokens=3, draft_adapt=False), draft=same_way)
    assert sizes(ALONG) == [1, 4, 4, 4, 4, 3]  # 1 + 4 * 4 + 3 tokens
    assert vars(result.acceptance) == {"proposed": 14, "examined": 14, "accepted": 14, "passes": 5}
    generate(ALONG, [[0]], one, Drafting(draft="some", draft_tokens=3, draft_adapt=True), draft=same_way)
    assert sizes(ALONG) == [1, 4, 6, 8, 1]
    other_way = chain(*[(n, (n + 2) % 8) for n in range(8)])
    one = dataclasses.replace(one, max_tokens=7)
    [result] = generate(ALONG, [[0]], one, Drafting(draft="some", draft_tokens=3, draft_adapt=True), draft=other_way)
    assert sizes(ALONG) == [1, 4, 3, 2, 2, 2, 1] and result.ids == [1, 2, 3, 4, 5, 6, 7]
    assert vars(result.acceptance) == {"proposed": 8, "examined": 5, "accepted": 0, "passes": 6}


def test_guesses_fill_the_context_and_no_more():
    short = chain(*[(n, (n + 1) % 8) for n in range(8)], context=6)
    one = Sampling(temperature=0, max_tokens=99)
    [result] = generate(short, [[0]], one, Drafting(draft="some", draft_tokens=10), draft=ALONG)
    assert result.ids == [1, 2, 3, 4, 5, 6] and result.finish == "context"  # six can be read: a seventh can be written
    assert sizes(short) == [1, 5]


def test_what_stands_behind_the_end_is_not_counted():
    one = dataclasses.replace(GREEDY, max_tokens=9, stop=("cd",))
    [result] = generate(ALONG, [[0]], one, Drafting(draft="some", draft_tokens=6), draft=ALONG, token_bytes=word_bytes)
    assert result.ids == [1, 2, 3] and result.text == "b"
    assert vars(result.acceptance) == {"proposed": 6, "examined": 2, "accepted": 2, "passes": 1}


def test_a_drafter_of_ones_own_is_used_and_what_it_makes_up_is_refused():
    class Guesser:
        def __init__(self, id):
            self.id, self.kept = id, []

        def propose(self, courses):
            for course in courses:
                while course.open:
                    course.take(self.id)

        def keep(self, rows):
            self.kept.append(list(rows))

    guesser = Guesser(4)
    wanted = [dataclasses.replace(GREEDY, max_tokens=n) for n in (2, 5)]
    results = generate(ALONG, [[0], [3]], wanted, Drafting(), draft=guesser)
    assert [r.ids for r in results] == [[1, 2], [4, 5, 6, 7, 0]] and guesser.kept == [[0, 1], [1], [1], [1]]
    assert [rows for rows, _ in ALONG.passes[-3:]] == [1, 1, 1]
    for id in (8, -1):
        with pytest.raises(ModelError, match=f"token id {id} does not exist"):
            generate(ALONG, [[0]], GREEDY, Drafting(), draft=Guesser(id))


def test_a_draft_of_another_vocabulary_is_refused_before_any_work():
    ALONG.passes.clear()
    with pytest.raises(ModelError, match="draft knows 3 tokens and the model 8"):
        generate(ALONG, [[0]], GREEDY, MODEL, draft=Markov(TABLE))
    assert not ALONG.passes


def test_broken_weights_end_the_row_that_comes_upon_them():
    class Broken(Markov):
        def logits(self, hidden):
            found = super().logits(hidden)
            found[hidden[..., 2] == 1] = torch.nan  # after token 2
            return found

    way = chain((0, 1), (1, 2), (2, 3), (5, 6), (6, 4), (4, 2))
    broken = Broken(way.table.detach())
    fine, late, first = generate(broken, [[5], [0], [2]], GREEDY, MODEL, draft=way)
    assert fine.finish == "failed" and fine.ids == [6, 4, 2]
    assert late.ids == [1, 2] and first.ids == []
    assert late.finish == first.finish == "failed" and late.error.key == first.error.key == "decode.not-finite"


def test_dropout_reaches_neither_model_and_comes_back():
    model, draft = random_model(dropout=0.5).train(), random_model(seed=1, dropout=0.5).train()
    one = Sampling(temperature=0, max_tokens=8)
    [expected] = plain(model, [[1, 2]], one)
    [result] = generate(model, [[1, 2]], one, MODEL, draft=draft)
    assert result.ids == expected.ids and model.training and draft.training
    steps = stream(model, [[1]], [one], MODEL, draft=draft)
    next(steps)
    assert not model.training and not draft.training
    steps.close()
    assert model.training and draft.training


def test_steps_joined_are_the_result_and_no_prompt_gives_none():
    steps = []
    results = generate(
        random_model(), [[1], [2, 3]], Sampling(max_tokens=6), LOOKUP, token_bytes=lambda id: b"%d," % id,
        on_token=steps.append,
    )  # fmt: skip
    for row, result in enumerate(results):
        own = [step for step in steps if step.row == row]
        assert [step.id for step in own] == result.ids
        assert "".join(step.text for step in own) == result.text
        assert [step.finish for step in own] == [None] * 5 + ["length"]
    assert generate(random_model(), [], [], LOOKUP) == []


@pytest.mark.parametrize("positions", ["relative", "learned"])
def test_an_encoder_decoder_copies_from_its_source(positions):
    small = {"vocabulary": 30, "context": 20, "width": 16, "layers": 2, "heads": 2, "init_std": 0.5}
    model = Transformer.create(Spec(**small, kind="encoder-decoder", positions=positions), 0)
    twin = Transformer.create(Spec(**small, kind="encoder-decoder", positions=positions), 1)
    decoder = Transformer.create(Spec(**small), 2)
    sources = [[5, 6, 7, 8, 9], [4], [9, 8, 7, 9]]
    one = Sampling(temperature=0, max_tokens=10)
    expected = plain(model, [[0]] * 3, one, sources=sources, stop_ids={3})
    for drafting, draft in ((LOOKUP, None), (NGRAM, None), (MODEL, twin), (MODEL, model), (MODEL, decoder)):
        for cached in (True, False):
            results = generate(
                model, [[0]] * 3, one, drafting, draft=draft, sources=sources, stop_ids={3}, cached=cached
            )
            for result, other in zip(results, expected, strict=True):
                same(result, other)
    with pytest.raises(ModelError, match="no source for it to read"):
        generate(decoder, [[0]], one, MODEL, draft=model)


def test_assisted_generation_of_transformers_gives_the_same(tmp_path):
    from transformers import AutoModelForCausalLM

    ours = {"model": random_model(0, context=64), "draft": near(1, context=64)}
    theirs = {}
    for name, model in ours.items():
        exchange.save(model, tmp_path / name)
        theirs[name] = AutoModelForCausalLM.from_pretrained(tmp_path / name)
    asked = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": 39, "pad_token_id": 0}
    for prompt in ([1, 2, 3], [4], [7, 8, 7, 8, 7]):
        ids = torch.tensor([prompt])
        assisted = theirs["model"].generate(ids, assistant_model=theirs["draft"], **asked)[0, len(prompt) :].tolist()
        copied = theirs["model"].generate(ids, prompt_lookup_num_tokens=4, **asked)[0, len(prompt) :].tolist()
        one = Sampling(temperature=0, max_tokens=20)
        [result] = generate(ours["model"], [prompt], one, MODEL, draft=ours["draft"], stop_ids={39})
        [looked_up] = generate(ours["model"], [prompt], one, LOOKUP, stop_ids={39})
        assert result.ids == looked_up.ids == assisted == copied
