import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ModelError
from amauta.decode.generate import generate
from amauta.decode.sample import Sampling
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.tree.recording import BeamRecorder, SampleRecorder
from amauta.decode.tree.replay import answers, replay
from amauta.decode.tree.tree import Tree
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.decode.toy import Markov

PROMPT = [3, 1, 4]


def network(seed=0, **changes) -> Transformer:
    spec = Spec(vocabulary=40, context=24, width=32, layers=2, heads=4, kv_heads=2, init_std=0.4, **changes)
    return Transformer.create(spec, seed)


class Bigram:
    """Not a network: it only offers log-probs of what follows a prefix."""

    size = 5

    def __init__(self, seed: int = 0) -> None:
        self.table = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)

    def next_logprobs(self, prefix):
        return self.table[prefix[-1]].numpy()


def sampled(model, count=5, tokens=6, prompt=PROMPT) -> Tree:
    tree = Tree("sample", "", {}, ids=prompt)
    recorder = SampleRecorder(tree)
    made = generate(model, [prompt] * count, Sampling(max_tokens=tokens, top_k=10, temperature=1.3), watch=recorder)
    recorder.end({row: one.finish for row, one in enumerate(made)})
    return tree


def searched(model, prompt=PROMPT) -> Tree:
    tree = Tree("beam", "", {}, ids=prompt)
    recorder = BeamRecorder(tree)
    [found] = search(model, [prompt], Sampling(max_tokens=5), Search(beams=3, returned=2), watch=recorder)
    recorder.end(found)
    return tree


def naive(model, context, ids) -> list[float]:
    """Each token's log-prob by a pass of its own."""
    found = []
    for at, id in enumerate(ids):
        logits = model.logits(model(torch.tensor([[*context, *ids[:at]]]))[:, -1])[0]
        found.append(float(logits.detach().double().log_softmax(-1)[id]))
    return found


@pytest.mark.parametrize("record", [sampled, searched])
def test_the_same_model_finds_the_same_log_probs(record):
    model = network()
    tree = record(model)
    found = replay(tree, model)
    assert found.token < 1e-5 and found.path < 1e-4 and found.skipped == 0
    assert found.tokens == len(tree.nodes) - 1
    for number, node in enumerate(tree.nodes[1:], start=1):
        before = [id for each in tree.path(number)[:-1] for id in tree.nodes[each].ids]
        expected = naive(model, before, node.ids)
        assert found.logprobs[number] == pytest.approx(expected, abs=1e-5)
        assert node.logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("record", [sampled, searched])
def test_another_model_does_not(record):
    tree = record(network())
    found = replay(tree, network(seed=1))
    assert found.token > 0.5 and found.path > found.token
    worst = max(abs(a - b) for node, again in zip(tree.nodes, found.logprobs, strict=True)
                for a, b in zip(node.logprobs, again, strict=True))  # fmt: skip
    assert found.token == worst and abs(tree.nodes[found.node].logprobs[0] - found.logprobs[found.node][0]) == worst


def test_one_wrong_number_is_found_and_its_path_with_it():
    model = network()
    tree = sampled(model)
    tree.nodes[3].logprobs[0] -= 0.25
    found = replay(tree, model)
    assert found.node == 3 and found.token == pytest.approx(0.25, abs=1e-5) == found.path


def test_a_path_adds_up_what_its_tokens_are_off():
    tree = Tree("by hand", "", {}, ids=[0])
    first = tree.add(0, [1], "", [math.log(0.5) - 0.1])
    tree.add(first, [1, 1], "", [math.log(0.5) - 0.1] * 2)
    found = replay(tree, Markov(torch.zeros(2, 2)))
    assert found.token == pytest.approx(0.1) and found.path == pytest.approx(0.3) and found.tokens == 3


def test_an_n_gram_is_replayed_too():
    tree = sampled(Bigram(), prompt=[1])
    assert replay(tree, Bigram()).token < 1e-6 and replay(tree, Bigram(seed=1)).token > 0.1


def test_an_encoder_decoder_reads_its_source_again():
    model = network(kind="encoder-decoder")
    source = [7, 8, 9]
    tree = Tree("sample", "", {}, ids=[0], source=source)
    generate(model, [[0]], Sampling(max_tokens=4), sources=[source], watch=SampleRecorder(tree))
    assert replay(tree, model).token < 1e-5
    tree.facts["source"] = [9, 9]
    assert replay(tree, model).token > 1e-2


def test_thoughts_are_read_after_what_they_were_given():
    model = network()
    tree = Tree("thoughts", "abc", {}, ids=PROMPT)
    ids = [5, 6, 7]
    after = {name: naive(model, context, ids) for name, context in
             (("path", PROMPT), ("ids", [9, 9]), ("text", [2, 2, 2]), ("child", [9, 9, *ids]))}  # fmt: skip
    tree.add(0, ids, "", after["path"], kind="thought")
    given_ids = tree.add(0, ids, "", after["ids"], kind="thought", given=[9, 9])
    tree.add(0, ids, "", after["text"], kind="thought", given="ccc")
    tree.add(given_ids, ids, "", after["child"], kind="thought")  # goes on from what its parent was given
    tree.add(0, ids, "", [-9.0] * 3, kind="thought", given=None)  # nobody noted it
    tree.add(0, [], "a vote", kind="operation")
    found = replay(tree, model, encode=lambda text: [ord(char) - 97 for char in text])
    assert found.token < 1e-5 and found.tokens == 12 and found.skipped == 2
    assert replay(tree, model).skipped == 3  # a text, and nobody to read it
    assert replay(tree, model).token < 1e-5


def test_a_prompt_of_text_alone_is_read():
    model = network()
    tree = Tree("thoughts", "bd", {})
    tree.add(0, [5], "", naive(model, [1, 3], [5]))
    assert replay(tree, model).skipped == 1
    found = replay(tree, model, encode=lambda text: [ord(char) - 97 for char in text])
    assert found.token < 1e-5 and found.skipped == 0


def test_ids_of_another_model_are_refused():
    tree = Tree("sample", "", {}, ids=[0])
    tree.add(0, [39], "", [-1.0])
    with pytest.raises(ModelError, match="39"):
        replay(tree, Markov(torch.zeros(5, 5)))


class Restless(Markov):
    """Says something else while it is trained."""

    def logits(self, hidden):
        return super().logits(hidden) * (0.5 if self.training else 1)


def test_a_model_in_training_is_read_without_dropout_and_trains_on():
    model = Restless(torch.randn(9, 9, generator=torch.Generator().manual_seed(1)))
    model.train()
    tree = sampled(model)
    assert replay(tree, model).token < 1e-5 and model.training


def test_nothing_to_compare():
    found = replay(Tree("empty", "", {}), Markov(torch.zeros(2, 2)))
    assert (found.token, found.node, found.path, found.tokens, found.skipped) == (0, None, 0, 0, 0)


def test_no_beginning_is_read_twice():
    tree = Tree("by hand", "", {}, ids=[0, 1])
    a = tree.add(0, [1], "", [-1.0])
    b = tree.add(a, [2], "", [-1.0])
    for parent in (0, a, a, b, b):
        tree.add(parent, [3], "", [-1.0])
    model = Markov(torch.zeros(4, 4))
    assert replay(tree, model).tokens == 7
    assert model.passes == [(1, 4)]  # prompt, a, b: all the others follow places in it


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_tree_of_a_model_replays(data):
    model = Markov(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    table = model.table.detach().log_softmax(-1)
    tree = Tree("random", "", {}, ids=[2])
    last = [2]
    for _ in range(data.draw(st.integers(1, 12))):
        parent = data.draw(st.integers(0, len(last) - 1))
        ids = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
        before = [last[parent], *ids]
        tree.add(parent, ids, "", [min(0.0, float(table[a, b])) for a, b in zip(before, ids, strict=False)])
        last.append(ids[-1])
    found = replay(tree, model)
    assert found.token < 1e-5 and found.tokens == sum(len(node.ids) for node in tree.nodes[1:])


def test_answers_are_counted():
    model = network()
    tree = Tree("sample", "", {}, ids=PROMPT)
    made = generate(model, [PROMPT] * 8, Sampling(max_tokens=2, temperature=0.3), watch=SampleRecorder(tree))
    counted = answers(tree)
    assert counted.total() == 8 and all(counted[tuple(one.ids)] >= 1 for one in made)
    assert len(counted) < 8
    [[best]] = search(model, [PROMPT], Sampling(max_tokens=5), Search(beams=3))
    assert answers(searched(model)) == {tuple(best.ids): 1}
    assert not answers(Tree("empty", "", {}))
