"""Beam search: against listing and sorting, against listing everything, and alone against in a batch."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.feed import CachedFeed
from amauta.decode.generate import generate
from amauta.decode.search.exhaustive import exhaustive
from amauta.decode.search.run import arrange, search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from amauta.decode.stop import cut
from amauta.decode.tree.recording import BeamRecorder
from amauta.decode.tree.tree import Tree
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator
from tests.decode.search.models import END, Told, answers, beams, ranked, transformer
from tests.decode.toy import word_bytes

KINDS = {
    "told": lambda seed: Told(6, seed),
    "ngram": lambda seed: NGram.train(documents(seed), size=6, begin=0, order=3, estimator=Estimator()),
    "transformer": lambda seed: transformer(seed, vocabulary=6),
}


def documents(seed):
    random = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(torch.tensor([0.0, 0.4, 0.3, 0.2, 0.1]), 400, replacement=True, generator=random)
    return [[0, *row, 5] for row in drawn.view(40, 10).tolist()]


def same(found, expected, tied=False):
    """The same answers with the same scores, in order; ``tied``: where several may have one score, only the scores."""
    assert [one.score for one in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    if not tied:
        assert [tuple(one.ids) for one in found] == [ids for _, ids in expected]


@pytest.mark.parametrize("early", ["true", "false", "never"])
@pytest.mark.parametrize("kind", KINDS)
def test_beams_are_what_listing_and_sorting_finds(kind, early):
    for seed, (width, groups, penalty) in enumerate([(3, 1, 1.0), (4, 1, 2.0), (4, 2, 1.0), (6, 3, 0.0), (2, 2, -1.0)]):
        model, stops = KINDS[kind](seed), (5,) if kind == "ngram" else (END,)
        diversity = 0.7 if groups > 1 else 0.0
        one = Search(width, width, penalty, early, beam_groups=groups, diversity_penalty=diversity)
        [found] = search(model, [[1, 2]], Sampling(max_tokens=6), one, stop_ids=stops)
        expected = beams(
            model, [1, 2], 6, width, groups=groups, diversity=diversity, penalty=penalty, early=early, stops=stops
        )
        same(found, expected, tied=kind == "ngram")
        for hypothesis in found:
            own = [float(model.next_logprobs([1, 2, *hypothesis.ids[:t]])[id]) for t, id in enumerate(hypothesis.ids)]
            assert hypothesis.logprobs == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("early", ["true", "false", "never"])
@pytest.mark.parametrize("penalty", [-1.5, -0.2, 0.0, 0.7])
def test_many_models_many_ends(early, penalty):
    for seed in range(30):
        stops = (END, 3, 5)[: 1 + 2 * (seed % 2)]
        for width, spread in ((2, 3.0), (3, 3.0), (4, 1.5)):
            model, one = Told(7, seed, spread), Search(width, width, penalty, early)
            [found] = search(model, [[1]], Sampling(max_tokens=9), one, stop_ids=stops)
            same(found, beams(model, [1], 9, width, penalty=penalty, early=early, stops=stops))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_as_many_beams_as_there_are_answers_find_the_best_of_all(kind, penalty):
    model, stops = KINDS[kind](1), (5,) if kind == "ngram" else (END,)
    one = Search(216, 10, penalty, "never")
    [found] = search(model, [[1]], Sampling(max_tokens=3), one, stop_ids=stops)
    every = answers(model, [1], 3, lambda ids: ids[-1] in stops)
    possible = {ids: logprobs for ids, logprobs in every.items() if min(logprobs) > -math.inf}
    same(found, ranked(possible, penalty)[:10], tied=kind == "ngram")


@pytest.mark.parametrize("kind", KINDS)
def test_one_beam_is_greedy_search(kind):
    for seed in range(4):
        model, stops = KINDS[kind](seed), [5, 3]
        prompts = [[1], [1, 2, 4], [2, 2]]
        one = Sampling(max_tokens=7, temperature=0, repetition_penalty=1.4, no_repeat_ngram_size=2)
        greedy = generate(model, prompts, [dataclasses.replace(one, stop_ids=tuple(stops))] * 3, stop_ids=stops)
        found = search(model, prompts, one, Search(), stop_ids=stops)
        assert [(each.ids, each.finish) for [each] in found] == [(each.ids, each.finish) for each in greedy]
        for [each], other in zip(found, greedy, strict=True):
            assert each.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_fewer_beams_than_wanted_where_there_is_not_more_to_find():
    model = Told(3)
    [found] = search(model, [[1]], Sampling(max_tokens=2), Search(beams=20, returned=20), stop_ids=[END])
    same(found, ranked(answers(model, [1], 2)))


def test_a_stop_text_ends_a_beam_and_is_cut_off():
    model, stops = Told(4, seed=2), ("bc", "dd")
    text = "".join(chr(97 + id) for id in range(4))
    assert text == "abcd"
    ended = lambda ids: ids[-1] == END or cut("".join(text[id] for id in ids), stops)[1] is not None  # noqa: E731
    expected = ranked(answers(model, [1], 4, ended))
    one = Sampling(max_tokens=4, stop=stops)
    [found] = search(
        model, [[1]], one, Search(256, 200, early_stopping="never"), stop_ids=[END], token_bytes=word_bytes
    )
    same(found, expected)
    assert [each.ids for each in exhaustive(model, [1], one, stop_ids=[END], token_bytes=word_bytes)][:40] == [
        each.ids for each in found
    ][:40]
    kinds = {each.finish for each in found}
    assert kinds == {"stop", "stop-string", "length"}
    for each in found:
        spelt = "".join(text[id] for id in each.ids if id != END)
        assert each.text == cut(spelt, stops)[0]
        assert (each.finish == "stop-string") == (cut(spelt, stops)[1] is not None)


def test_a_stop_text_whose_character_is_spread_over_tokens():
    pieces = [b"", b"n", b"\xc3", b"\xb1", "ñu".encode(), b"u"]

    def spelt(ids):
        return b"".join(pieces[id] for id in ids).decode(errors="replace")

    every = answers(Told(6, 4), [1], 3, lambda ids: ids[-1] == END or "ñ" in spelt(ids))
    [found] = search(
        Told(6, 4), [[1]], Sampling(max_tokens=3, stop=("ñ",)), Search(216, 216, early_stopping="never"),
        stop_ids=[END], token_bytes=pieces.__getitem__,
    )  # fmt: skip
    same(found, ranked(every))
    assert all((one.finish == "stop-string") == ("ñ" in spelt(one.ids)) and "ñ" not in one.text for one in found)


class Once:
    """No token comes twice, and no end before three tokens."""

    def __init__(self, size, taken=()):
        self.size, self.taken = size, list(taken)

    finished = False

    def mask(self):
        return torch.tensor([id not in self.taken and (id != END or len(self.taken) > 2) for id in range(self.size)])

    def take(self, id):
        assert self.mask()[id]
        self.taken.append(id)

    def copy(self):
        return Once(self.size, self.taken)


@pytest.mark.parametrize("groups", [1, 2])
def test_each_beam_carries_its_own_constraint(groups):
    model, width = Told(6, seed=5), 240
    first = Once(6)
    diversity = {"beam_groups": groups, "diversity_penalty": 1e-9} if groups > 1 else {}
    one = Search(width, 120, early_stopping="never", **diversity)
    bound, free = search(model, [[1], [1]], Sampling(max_tokens=4), one, stop_ids=[END], constraints=[first, None])
    legal = {
        ids: each for ids, each in answers(model, [1], 4).items()
        if len(set(ids)) == len(ids) and (END not in ids or len(ids) > 3)
    }  # fmt: skip
    expected = ranked(legal)
    if groups == 1:
        same(bound, expected[:120])
        same(free, ranked(answers(model, [1], 4))[:120])
    else:
        assert {tuple(each.ids) for each in bound} <= set(legal)
    assert first.taken == []
    assert [
        tuple(each.ids) for each in exhaustive(model, [1], Sampling(max_tokens=4), stop_ids=[END], constraint=first)
    ] == [ids for _, ids in expected]


def test_a_constraint_ends_an_answer_of_a_model_without_stop_ids():
    class Two(Once):
        finished = property(lambda self: len(self.taken) == 2)

        def copy(self):
            return Two(self.size, self.taken)

    [found] = search(Told(5), [[1]], Sampling(max_tokens=9), Search(8, 4), constraints=[Two(5)])
    assert all(len(one.ids) == 2 and one.finish == "stop" for one in found)


def test_a_full_context_ends_a_beam():
    model = transformer(1, vocabulary=8, context=6)
    prompts = [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1]]
    found = search(model, prompts, Sampling(max_tokens=4), Search(3, 3))
    assert [{(len(one.ids), one.finish) for one in each} for each in found] == [
        {(3, "context")}, {(1, "context")}, {(4, "length")}
    ]  # fmt: skip
    with pytest.raises(ModelError, match="at most 6"):
        search(model, [[1] * 7], Sampling(), Search(2))
    cut_off = search(model, [[1, *range(7)]], Sampling(max_tokens=2, truncate="left"), Search(2))[0][0]
    assert cut_off.dropped == 4
    assert cut_off.ids == search(model, [[1, 4, 5, 6]], Sampling(max_tokens=2), Search(2))[0][0].ids


MODELS = [transformer(0), Told(12), transformer(1, kind="encoder-decoder", decoder_start=1)]
SEARCHES = [
    Search(3, 3), Search(4, 2, 0.0, "true"), Search(2, 2, 2.0, "never"), Search(4, 4, beam_choice="sampled"),
    Search(4, 4, beam_choice="stochastic"), Search(4, 4, beam_groups=2, diversity_penalty=0.5),
    Search(contrastive_alpha=0.5), Search(),
]  # fmt: skip
mixed = st.lists(
    st.tuples(
        st.lists(st.integers(0, 11), min_size=1, max_size=6),
        st.lists(st.integers(1, 11), min_size=1, max_size=6),
        st.builds(
            Sampling, max_tokens=st.integers(3, 9), min_tokens=st.integers(0, 3), seed=st.integers(0, 99),
            temperature=st.sampled_from([0.5, 1.0]), repetition_penalty=st.sampled_from([1.0, 1.3]),
            top_k=st.sampled_from([0, 5]), stop=st.sampled_from([(), ("cd", "ee")]),
            stop_ids=st.sampled_from([(), (3,)]),
        ),
    ),
    min_size=2, max_size=5,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(rows=mixed, model=st.sampled_from(range(3)), one=st.sampled_from(SEARCHES))
def test_a_batch_gives_each_prompt_what_it_gets_alone(rows, model, one):
    if model == 1 and one.contrastive_alpha:
        model = 0
    prompts, sources, each = (list(column) for column in zip(*rows, strict=True))
    read = sources if model == 2 else None
    common = {"stop_ids": [END], "token_bytes": word_bytes}
    together = search(MODELS[model], prompts, each, one, sources=read, **common)
    for i, found in enumerate(together):
        [alone] = search(MODELS[model], [prompts[i]], [each[i]], one, sources=read and [read[i]], **common)
        assert [(x.ids, x.finish, x.text) for x in found] == [(x.ids, x.finish, x.text) for x in alone]
        for x, y in zip(found, alone, strict=True):
            assert x.logprobs == pytest.approx(y.logprobs, abs=1e-4)
            # noise just below the largest magnifies how a batch rounds
            assert x.score == pytest.approx(y.score, abs=1e-2 if one.beam_choice == "stochastic" else 1e-4)


@pytest.mark.parametrize("one", SEARCHES)
def test_with_a_cache_and_without_the_same_is_found(one):
    prompts, common = [[1, 2, 3], [4]], {"stop_ids": [END], "token_bytes": word_bytes}
    with_cache, without = (
        search(MODELS[0], prompts, Sampling(max_tokens=8, seed=4), one, cached=cached, **common)
        for cached in (True, False)
    )
    assert [[(x.ids, x.text) for x in each] for each in with_cache] == [
        [(x.ids, x.text) for x in each] for each in without
    ]


def check_history(model, prompt, one, steps, found, forbidden=0):
    """The steps that were watched, put together again: every log-prob is the model's, every answer has ended in it."""
    assert [now.step for now in steps] == list(range(1, len(steps) + 1))
    running, ended = [()], set()
    recorder = BeamRecorder(tree := Tree("beams", "", {}))
    for now in steps:
        assert len(now.logits) == len(now.stages) == len(running) <= one.beams
        ids = [(*running[parent], id) for parent, id in zip(now.parents, now.ids, strict=True)]
        assert len(set(ids)) == len(ids)
        for path, logprob in zip(ids, now.logprobs, strict=True):
            assert logprob == pytest.approx(float(model.next_logprobs([*prompt, *path[:-1]])[path[-1]]), abs=1e-4)
        for path, logits, stages in zip(running, now.logits, now.stages, strict=True):
            torch.testing.assert_close(logits.log_softmax(-1), model.next_logprobs([*prompt, *path]))
            assert now.step > forbidden or dict(stages)["min_tokens"][END] == -torch.inf
        ended |= {path for path, state in zip(ids, now.states, strict=True) if state == "finished"}
        running = [path for path, state in zip(ids, now.states, strict=True) if state == "kept"]
        recorder(now)
    assert running == []
    assert {tuple(x.ids) for x in found} <= ended
    recorder.end(found)
    [best] = [n for n, node in enumerate(tree.nodes) if node.facts.get("rank") == 1]
    assert tree.logprob(best) == pytest.approx(sum(found[0].logprobs))


@pytest.mark.parametrize("one", SEARCHES)
def test_the_steps_that_are_watched_are_the_history(one):
    seen, prompts = [], [[1, 2], [3]]
    each = Sampling(max_tokens=6, min_tokens=2, temperature=0.8)
    found = search(MODELS[0], prompts, each, one, stop_ids=[END], watch=seen.append)
    for number, prompt in enumerate(prompts):
        steps = [now for now in seen if now.prompt == number]
        check_history(MODELS[0], prompt, one, steps, found[number], forbidden=2)


def test_the_history_of_many_searches():
    early = 0
    for seed in range(20):
        for one in (
            Search(3, 3, early_stopping="true"),
            Search(6, 6, beam_groups=3, diversity_penalty=0.4),
            Search(4, 4, beam_choice="sampled", early_stopping="true"),
            Search(4, 4, beam_choice="stochastic"),
        ):
            model, seen = Told(5, seed), []
            [found] = search(model, [[1]], Sampling(max_tokens=7), one, stop_ids=[END], watch=seen.append)
            check_history(model, [1], one, seen, found)
            early += len(seen) < 7
    assert early > 10


def test_so_many_continuations_are_looked_at():
    for stops, width, expected in (([END], 3, 6), ([END, 1, 2, 3], 2, 10), ([], 2, 4)):
        for choice in ("best", "sampled"):
            seen = []
            one = Search(width, beam_choice=choice)
            search(Told(12), [[5]], Sampling(max_tokens=5), one, stop_ids=stops, watch=seen.append)
            assert {len(now.ids) for now in seen} == {expected}


def test_most_beams_stay_in_their_rows():
    assert arrange([0, 0, 0], 1) == [0, 1, 2]
    assert arrange([2, 0, 2, 1], 4) == [1, 3, 0, 2]  # row 2's second child takes row 3, whose beam is gone
    assert arrange([3, 3], 4) == [0, 1]
    for parents in ([1, 1, 0, 3, 3], [4, 0, 2], [0, 1, 2, 3]):
        placed = arrange(parents, 5)
        assert sorted(placed) == list(range(len(parents)))
        stay = sum(parents[child] == row for row, child in enumerate(placed))
        assert stay == len({parent for parent in parents if parent < len(parents)})


def test_the_cache_is_left_alone_when_no_beam_moved(monkeypatch):
    moved = []
    monkeypatch.setattr(CachedFeed, "reorder", lambda self, places: moved.append(places))
    search(MODELS[0], [[1, 2], [3]], Sampling(max_tokens=5), Search(), stop_ids=[])
    assert moved == []


def failed(found):
    """Which prompts failed, and the text of their error."""
    return {n: str(each[0].error) for n, each in enumerate(found) if each[0].finish == "failed" and each[0].ids == []}


class Stuck(Once):
    """Nothing may follow on token 2."""

    def mask(self):
        return super().mask() & (2 not in self.taken)

    def copy(self):
        return Stuck(self.size, self.taken)


def test_a_prompt_that_fails_fails_alone():
    broken = Told(6)
    plain = search(broken, [[1], [2]], Sampling(max_tokens=3), Search(2))
    broken.next = lambda prefix: torch.full((6,), torch.nan) if prefix[0] == 4 else broken._next(prefix)
    for value in (Search(2), Search(), Search(2, beam_choice="sampled"), Search(2, beam_choice="stochastic")):
        found = search(broken, [[1], [4], [2]], Sampling(max_tokens=3), value)
        assert list(failed(found)) == [1] and "2 of 3" in failed(found)[1] and "not finite" in failed(found)[1]
        assert [len(each[0].ids) for each in found] == [3, 0, 3]
    assert search(broken, [[1], [4], [2]], Sampling(max_tokens=3), Search(2))[::2] == plain
    late = Told(6)
    late.next = lambda prefix: torch.full((6,), torch.nan) if len(prefix) == 3 else late._next(prefix)
    for value in (Search(4, 4), Search(4, 4, beam_choice="stochastic")):  # answers that ended before are not returned
        assert list(failed(search(late, [[1]], Sampling(max_tokens=4), value, stop_ids=[0, 1, 2]))) == [0]


def test_a_beam_that_nothing_may_follow_leaves_its_place_to_others():
    one = Search(4, 4, early_stopping="never")
    [found] = search(Told(6), [[1]], Sampling(max_tokens=3), one, stop_ids=[END], constraints=[Stuck(6)])
    assert len(found) == 4 and all(len(each.ids) == 3 and 2 not in each.ids[:2] for each in found)
    banned = dataclasses.replace(Sampling(max_tokens=9), no_repeat_ngram_size=1, ban_ids=(0,))
    for value in (one, Search(4, beam_choice="stochastic"), Search(4, beam_choice="sampled"), Search()):
        found = search(Told(3), [[1], [2, 1]], [Sampling(max_tokens=2), banned], value)
        assert list(failed(found)) == [1] and "2 of 2" in failed(found)[1]
        assert found[1][0].error.key == "sampling.nothing-left"
        bound = Once(3, [0, 1, 2])
        found = search(Told(3), [[1], [2]], Sampling(max_tokens=2), value, constraints=[None, bound])
        assert list(failed(found)) == [1] and found[1][0].error.key == "sampling.nothing-left"
    with pytest.raises(ModelError, match="1 of 1"):
        exhaustive(Told(3), [2, 1], banned)


def test_a_fault_of_a_constraint_is_the_prompts():
    class Broken(Once):
        def mask(self):
            if 2 in self.taken or 5 in self.taken:
                raise ModelError("constrain.stuck", text="", tokens=1)
            return super().mask()

        def copy(self):
            return Broken(self.size, self.taken)

    seen = []
    common = {"stop_ids": [END], "watch": seen.append}
    [found] = search(Told(6), [[1]], Sampling(max_tokens=3), Search(6, 6), constraints=[Broken(6)], **common)
    assert found and all(not {2, 5} & {*each.ids[:2]} for each in found)
    assert {"constraint"} == {name for now in seen for stages in now.stages for name, _ in stages}
    assert all(float(stages[0][1][END]) == -torch.inf for now in seen for stages in now.stages if now.step == 1)
    for one in (Search(2), Search(2, beam_choice="stochastic"), Search()):
        found = search(Told(6), [[1], [1]], Sampling(max_tokens=3), one, constraints=[None, Broken(6, [2])])
        assert list(failed(found)) == [1] and found[1][0].error.key == "constrain.stuck"


def test_what_cannot_begin_is_refused():
    with pytest.raises(ModelError, match="2 of 2 has no tokens"):
        search(Told(6), [[1], []], Sampling(), Search(2))
    with pytest.raises(ModelError, match="empty"):
        search(Told(6), [[1]], Sampling(stop=("",)), Search(2), token_bytes=word_bytes)
    with pytest.raises(ConfigError, match="returned is 3"):
        search(Told(6), [[1]], Sampling(), Search(2, 3))
    assert search(Told(6), [], Sampling(), Search(2)) == []


def test_dropout_is_off_while_searching_and_back_on_afterwards():
    model = transformer(0, dropout=0.5)
    quiet = search(model, [[1, 2]], Sampling(max_tokens=5), Search(3, 3))
    model.train()
    assert search(model, [[1, 2]], Sampling(max_tokens=5), Search(3, 3)) == quiet
    assert model.training
