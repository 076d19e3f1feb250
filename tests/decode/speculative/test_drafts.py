from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.settings import Sampling
from amauta.decode.speculative.course import Course
from amauta.decode.speculative.drafts import Lookup, ModelDraft, TextNgram, check_draft, drafter_for
from amauta.decode.speculative.settings import Drafting
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.decode.toy import Markov

V = 8
GREEDY = Sampling(temperature=0)


def course(ids, most=4, number=0, one=GREEDY, seed=0, **more):
    return Course(number, ids, one, torch.Generator().manual_seed(seed), prompt_length=len(ids), most=most, **more)


def looked_up(text, most, longest=3, shortest=1, head=()):
    """The definition, by search: the longest end of the text that stood there before, at its newest place."""
    whole = [*head, *text]
    for size in range(min(longest, len(whole) - 1), shortest - 1, -1):
        for place in range(len(whole) - 1, size - 1, -1):
            if whole[place - size : place] == whole[len(whole) - size :]:
                copied = list(whole)
                for n in range(most):
                    copied.append(copied[place + n])
                return copied[len(whole) :]
    return []


def test_lookup_by_hand():
    drafter = Lookup([()], shortest=1, longest=3)
    one = course([5, 1, 2, 3, 6, 1, 2, 4, 7, 1, 2])  # "1 2" stood there twice: the newest went on with 4 7 1 2
    drafter.propose([one])
    assert one.proposed == [4, 7, 1, 2] and one.drafts == [None] * 4
    loop = course([0, 3, 3], most=3)  # the copy reaches the text's end and goes on in itself
    Lookup([()], shortest=1, longest=3).propose([loop])
    assert loop.proposed == [3, 3, 3]
    new = course([0, 1, 2])
    Lookup([()], shortest=1, longest=3).propose([new])
    assert new.proposed == [] and len(new.places) == 1


@given(
    texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6),
    head=st.lists(st.integers(0, 2), max_size=5),
    sizes=st.sampled_from([(1, 1), (1, 3), (2, 3), (3, 3)]),
)
def test_lookup_is_its_definition_as_the_text_grows(texts, head, sizes):
    shortest, longest = sizes
    drafter, text = Lookup([(), head], shortest=shortest, longest=longest), []
    for piece in texts:
        text += piece
        one = course(text, number=1)
        drafter.propose([one])
        assert one.proposed == looked_up(text, 4, longest, shortest, head)
    drafter.keep([0])
    assert not drafter.runs


def test_a_stop_id_is_proposed_and_nothing_behind_it():
    one = course([1, 2, 3, 4, 1], one=Sampling(temperature=0, stop_ids=(3,)))
    Lookup([()], shortest=1, longest=3).propose([one])
    assert one.proposed == [2, 3] and len(one.places) == 2


class Odd:
    """Only odd ids; whole after ``end``, stuck after 5."""

    def __init__(self, end=None):
        self.ids, self.end = [], end

    @property
    def finished(self):
        return bool(self.ids) and self.ids[-1] == self.end

    def mask(self):
        if self.ids and self.ids[-1] == 5:
            raise ModelError("constrain.stuck", text="", tokens=0)
        return torch.tensor([id % 2 == 1 and not self.finished for id in range(V)])

    def take(self, id):
        self.ids.append(id)

    def copy(self):
        twin = Odd(self.end)
        twin.ids = list(self.ids)
        return twin

    def forced(self):
        return []


def test_a_constraint_goes_along_as_a_copy():
    constraint = Odd()
    one = course([1, 3, 7, 4, 1], constraint=constraint)
    Lookup([()], shortest=1, longest=3).propose([one])
    assert one.proposed == [3, 7] and constraint.ids == []  # 4 is not allowed
    assert all(place.allowed.tolist() == [False, True] * 4 for place in one.places) and len(one.places) == 3


def test_a_course_ends_where_the_constraint_ends_or_fails():
    for constraint in (Odd(end=7), Odd()):
        last = 7 if constraint.end else 5
        one = course([1, 3, last, 1, 1], constraint=constraint)
        one.take(3)
        one.take(last)
        assert not one.open and one.proposed == [3, last] and len(one.places) == 2


def test_what_the_constraint_forces_is_proposed_first():
    constraint = Odd()
    constraint.forced, constraint.copy = lambda: [7, 7], lambda: constraint
    one = course([1, 3, 1], constraint=constraint)
    Lookup([()], shortest=1, longest=3).propose([one])
    assert one.proposed == [7, 7]


def chain(*steps, context=64, size=V):
    """A model that goes along ``steps`` with near certainty."""
    table = torch.zeros(size, size)
    for a, b in steps:
        table[a, b] = 50.0
    return Markov(table, context)


def test_a_model_goes_on_by_itself_each_row_as_far_as_it_may():
    model = chain((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    drafter = ModelDraft(model, [[0], [7, 1], [2]], tokens=20, vocabulary=V)
    rows = [course([0], 3, 0), course([7, 1], 1, 1), course([2], 4, 2, one=Sampling(temperature=0, stop_ids=(4,)))]
    with torch.inference_mode():
        drafter.propose(rows)
        assert [row.proposed for row in rows] == [[1, 2, 3], [2], [3, 4]]
        drafter.keep([2])
        again = course([2, 3, 0], 2, 2)  # 4 fell
        drafter.propose([again])
    assert again.proposed == [1, 2] and {rows for rows, _ in model.passes[-2:]} == {1}


def test_a_model_proposes_nothing_beyond_its_context_or_its_vocabulary():
    model = chain((0, 1), (1, 2), (2, 3), (3, 4), size=5, context=4)
    prompts = [[0, 0], [0, 0, 0, 0, 0], [7, 0], [0]]
    drafter = ModelDraft(model, prompts, tokens=30, vocabulary=V)
    rows = [course(prompt, 9, number) for number, prompt in enumerate(prompts)]
    with torch.inference_mode():
        drafter.propose(rows)
    assert [row.proposed for row in rows] == [[1, 2, 3], [], [], [1, 2, 3, 4]]  # four tokens read give a fifth
    assert all(draft.shape == (V,) for row in rows for draft in row.drafts)
    assert all(draft[5:].isneginf().all() for row in rows for draft in row.drafts)


def test_a_draft_of_more_tokens_never_proposes_one_that_the_model_has_not():
    model = chain((0, 9), (1, 2), size=10)
    drafter = ModelDraft(model, [[0]], tokens=20, vocabulary=V)
    one = course([0], 6, one=Sampling())
    with torch.inference_mode():
        drafter.propose([one])
    assert max(one.proposed) < V and len(one.proposed) == 6


def test_a_draft_that_gives_nothing_to_what_is_allowed_proposes_nothing():
    counted = NGram.train(
        [[0, 2, 4, 6]], size=V, begin=0, order=2, estimator=Estimator("maximum-likelihood", base="none")
    )
    one = course([0, 2], constraint=Odd())
    ModelDraft(counted, [[0, 2]], tokens=20, vocabulary=V).propose([one])
    assert one.proposed == []


def test_a_broken_draft_is_named():
    broken = chain((0, 1))
    broken.table.data[1, 1] = torch.nan
    drafter = ModelDraft(broken, [[0]], tokens=20, vocabulary=V)
    with pytest.raises(ModelError, match="draft's logits are not finite"), torch.inference_mode():
        drafter.propose([course([0])])


def test_what_a_proposal_was_drawn_from_is_filtered_and_masked():
    model = Markov(torch.randn(V, V, generator=torch.Generator().manual_seed(1)))
    one = course([0, 3], 1, one=Sampling(temperature=0.5, top_k=2, repetition_penalty=1.5), constraint=Odd())
    with torch.inference_mode():
        ModelDraft(model, [[0, 3]], tokens=9, vocabulary=V).propose([one])
    logits = model.table[3].detach().clone()
    logits[[0, 3]] = torch.where(logits[[0, 3]] > 0, logits[[0, 3]] / 1.5, logits[[0, 3]] * 1.5)
    logits[::2] = -torch.inf
    logits = logits / 0.5
    logits[logits < logits.sort(descending=True).values[1]] = -torch.inf
    torch.testing.assert_close(one.drafts[0], logits)
    assert one.drafts[0][one.proposed[0]].isfinite()


def test_the_text_is_counted_and_counted_again_as_it_grows():
    text = [1, 2, 3, 1, 2, 4, 1, 2]
    drafter = TextNgram([(), (5, 6)], longest=2, vocabulary=V)
    first, second = course(text, 2, one=Sampling()), course([5], 1, number=1)
    drafter.propose([first, second])
    exact = NGram.train([[V, *text]], size=V + 1, begin=V, order=3, estimator=Estimator("witten-bell"))
    for place, draft in zip(first.places, first.drafts, strict=False):
        expected = exact.next_logprobs(place.history[-2:])[:V]
        assert np.allclose(draft.log_softmax(-1), expected - np.logaddexp.reduce(expected), atol=1e-5)
    assert second.proposed == [6]  # what the encoder reads is counted too
    before = drafter.models[0]
    drafter.propose([course([*text, 3], 1)])
    assert drafter.models[0] is not before and drafter.models[0][1] == 9
    grown = drafter.models[0]
    drafter.propose([course([*text, 3, 3], 1)])  # 10 is not an eighth more than 9
    assert drafter.models[0] is grown
    drafter.keep([1])
    assert set(drafter.models) == {1}


def test_a_draft_of_another_vocabulary_is_refused_with_both_sizes():
    with pytest.raises(ModelError, match="draft knows 5 tokens and the model 8"):
        check_draft(chain(), chain(size=5), sources=False)
    check_draft(chain(), chain(), sources=False)
    pieces = ["a", "b", "c"]

    def tokenizer(pieces, fingerprint):
        return SimpleNamespace(size=len(pieces), fingerprint=fingerprint, pieces=lambda ids: [pieces[id] for id in ids])

    ours = tokenizer(pieces, "1")
    check_draft(chain(), chain(size=5), ours, tokenizer(pieces, "2"), sources=False)  # only padded otherwise
    with pytest.raises(ModelError, match=r"draft's tokenizer has 3 tokens and the model's 3; token 1 is 'x' .* 'b'"):
        check_draft(chain(), chain(), ours, tokenizer(["a", "x", "c"], "2"), sources=False)
    with pytest.raises(ModelError, match="has 2 tokens and the model's 3; token 2 is - to the draft and 'c'"):
        check_draft(chain(), chain(), ours, tokenizer(["a", "b"], "2"), sources=False)


def test_a_draft_that_cannot_write_or_has_nothing_to_read_is_refused():
    small = {"vocabulary": V, "context": 16, "width": 8, "layers": 1, "heads": 2}
    encoder = Transformer.create(Spec(**small, kind="encoder", outputs=("masked",)), 0)
    pair = Transformer.create(Spec(**small, kind="encoder-decoder"), 0)
    with pytest.raises(ModelError, match=r"does not write \(encoder\)"):
        check_draft(chain(), encoder, sources=False)
    with pytest.raises(ModelError, match="no source for it to read"):
        check_draft(chain(), pair, sources=False)
    check_draft(pair, pair, sources=True)


def test_settings_that_cannot_hold():
    with pytest.raises(ConfigError, match="draft_shortest is 4, more than draft_longest, which is 3"):
        Drafting(draft="lookup", draft_shortest=4)
    with pytest.raises(ConfigError, match='"tiny", the name of a model, and no model came'):
        drafter_for(Drafting(draft="tiny"), None, [[0]], tokens=9, vocabulary=V)
    assert [Drafting(draft=name).needs_model for name in (None, "lookup", "ngram", "tiny")] == [False] * 3 + [True]
