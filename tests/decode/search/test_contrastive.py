"""Contrastive search: against its equation worked without a cache, and its limits, which are greedy search."""

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.decode.generate import generate
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from tests.decode.search.models import END, Told, transformer
from tests.decode.toy import Markov, word_bytes

COMMON = {"stop_ids": [END], "token_bytes": word_bytes}
DECODER = transformer(0, context=16)
PAIR = transformer(1, kind="encoder-decoder", decoder_start=1, context=16)


def by_definition(model, prompt, length, alpha, k, source=None, context=16):
    """Su et al. 2022, equation 5, one candidate after the other: the ids and the sum of the values."""

    def states(ids):
        ids = torch.tensor([ids])
        return (model(ids) if source is None else model(torch.tensor([source]), decoder_ids=ids))[0]

    ids, total = list(prompt), 0.0
    with torch.no_grad():
        for _ in range(length):
            said = states(ids)
            p = model.logits(said[-1]).softmax(-1)
            values = {}
            for v in p.topk(k).indices.tolist():
                if len(ids) == context:  # nothing can be read any more
                    values[v] = float(p[v])
                    continue
                h = states([*ids, v])[-1]
                likeness = max(float(torch.cosine_similarity(h, one, dim=0)) for one in said)
                values[v] = (1 - alpha) * float(p[v]) - alpha * likeness
            best = max(values, key=lambda v: values[v])
            ids.append(best)
            total += values[best]
            if best == END or len(ids) > context:
                break
    return ids[len(prompt) :], total


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.3, 12), (1.0, 3), (0.9, 2)])
def test_every_token_is_the_one_of_the_equation(alpha, k, cached):
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 3, 2, 1, 4]]
    one = Search(contrastive_alpha=alpha, contrastive_k=k)
    for model, sources in ((DECODER, None), (PAIR, [[3, 4], [5, 6, 7, 8], [9]])):
        starts = prompts if sources is None else [[1], [1, 2], [1]]
        found = search(model, starts, Sampling(max_tokens=10), one, sources=sources, cached=cached, **COMMON)
        for i, [each] in enumerate(found):
            ids, total = by_definition(model, starts[i], 10, alpha, k, sources and sources[i])
            assert each.ids == ids and each.score == pytest.approx(total, abs=1e-4)
            assert each.finish == ("stop" if ids[-1] == END else "length" if len(ids) == 10 else "context")


def test_one_candidate_or_no_penalty_is_greedy_search():
    prompts = [[1, 2, 3], [4], [5, 6]]
    greedy = generate(DECODER, prompts, Sampling(max_tokens=8, temperature=0, repetition_penalty=1.2), **COMMON)
    for one in (Search(contrastive_alpha=0.7, contrastive_k=1), Search(contrastive_alpha=1e-9, contrastive_k=5)):
        found = search(DECODER, prompts, Sampling(max_tokens=8, repetition_penalty=1.2), one, **COMMON)
        assert [(each.ids, each.finish, each.text) for [each] in found] == [
            (each.ids, each.finish, each.text) for each in greedy
        ]
        for [each], other in zip(found, greedy, strict=True):
            assert each.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_it_leaves_a_loop_that_greedy_search_stays_in():
    table = torch.full((4, 4), -9.0)
    table[:3, :3] = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.5, 1.0], [2.0, 1.0, 0.5]])  # everything leads to token 0
    model = Markov(table)  # states are one-hot: a token is like itself and nothing else
    [greedy] = generate(model, [[1]], Sampling(max_tokens=3, temperature=0))
    assert greedy.ids == [0, 0, 0]
    [[found]] = search(model, [[1]], Sampling(max_tokens=3), Search(contrastive_alpha=0.6, contrastive_k=3))
    # 0 .4 · .506; then .6 of 0 is lost and 1 was the prompt: 2, at .4 · .09; then all three were said
    assert found.ids == [0, 2, 0]
    p = table.softmax(-1)
    assert found.score == pytest.approx(float(0.4 * (p[1, 0] + p[0, 2] + p[2, 0]) - 0.6))


def test_a_forbidden_token_is_never_taken_however_new_it_is():
    one = Sampling(max_tokens=6, ban_ids=tuple(id for id in range(12) if id not in (3, 5)))
    [[found]] = search(DECODER, [[1, 2]], one, Search(contrastive_alpha=1.0, contrastive_k=12))
    assert set(found.ids) <= {3, 5}


def test_the_full_context_takes_the_likeliest_token():
    for cached in (True, False):
        [[found]] = search(DECODER, [[1] * 16], Sampling(max_tokens=4), Search(contrastive_alpha=1.0), cached=cached)
        assert found.finish == "context" and found.ids == [int(DECODER.next_logprobs([1] * 16).argmax())]


def test_a_prompt_that_fails_fails_alone():
    class Looked(Markov):
        def logits(self, hidden):
            return self.table[hidden.argmax(-1)]  # a product would spread the NaN

    broken = Looked(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))
    one = Search(contrastive_alpha=0.5, contrastive_k=2)
    [plain] = search(broken, [[1]], Sampling(max_tokens=3, ban_ids=(4,)), one)
    with torch.no_grad():
        broken.table[4] = torch.nan
    found = search(broken, [[4], [1]], Sampling(max_tokens=3, ban_ids=(4,)), one)
    assert found[1] == plain
    [failed] = found[0]
    assert failed.finish == "failed" and "1 of 2" in str(failed.error) and failed.ids == []


def test_a_model_without_hidden_states_is_refused():
    with pytest.raises(ModelError, match="Told"):
        search(Told(5), [[1]], Sampling(), Search(contrastive_alpha=0.6))
