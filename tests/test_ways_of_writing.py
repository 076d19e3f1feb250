"""``LanguageModel.generate`` by the ways that it can be asked for: searched, guessed ahead, of a form, recorded."""

import json

import pytest
import torch

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from amauta.decode.tree.replay import replay
from amauta.language_model import LanguageModel
from amauta.language_model.recorded import recorded
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe

TEXTS = ["Rosa vende lana en el mercado.", "Luis teje un poncho rojo.", "El año pasado llovió mucho."] * 4


@pytest.fixture(scope="module")
def model():
    spec = Spec(vocabulary=300, context=64, width=32, layers=2, heads=4, kv_heads=2, init_std=0.3)
    return LanguageModel(Transformer.create(spec, 0).eval(), train_bpe(TEXTS, 300), name="small")


def test_beams_are_those_of_the_search_and_the_best_is_the_answer(model):
    [made] = model.generate("Rosa", beams=3, returned=2, max_tokens=6, length_penalty=0.5)
    [found] = search(
        model.model, [model.tokenizer.prompt("Rosa")], [Sampling(max_tokens=6)],
        Search(beams=3, returned=2, length_penalty=0.5), stop_ids=model.stop_ids, token_bytes=model.token_bytes,
    )  # fmt: skip
    assert made.tokens == found[0].ids and made.score == found[0].score
    assert [beam["ids"] for beam in made.beams] == [one.ids for one in found]
    assert made.settings["beams"] == 3 and made.sources["beams"] == "argument" and made.settings["temperature"] == 0


@pytest.mark.parametrize("draft", ["lookup", "ngram", "itself"])
def test_a_draft_changes_no_token(model, draft):
    prompts = ["Rosa vende lana, Rosa vende", "Luis"]
    plain = model.generate(prompts, max_tokens=12, temperature=0)
    guessed = model.generate(prompts, max_tokens=12, temperature=0, draft=model if draft == "itself" else draft)
    for one, other in zip(plain, guessed, strict=True):
        assert one.tokens == other.tokens and one.text == other.text
        assert other.drafts["accepted"] <= other.drafts["proposed"] and other.drafts["passes"] <= len(one.tokens)
    if draft == "itself":
        assert all(one.drafts["acceptance_rate"] == 1 for one in guessed)


def test_a_form_is_kept_and_its_end_is_told(model):
    many = model.generate(["Rosa", "Luis", "El"], choice=("sí", "no"), max_tokens=8, seed=3)
    assert {one.text for one in many} <= {"sí", "no"} and all(one.complete for one in many)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    [cut] = model.generate("Rosa", schema=schema, max_tokens=3)
    assert cut.complete is False and cut.finish == "length" and cut.text.startswith("{")
    [beam] = model.generate("Rosa", regex="[ab]{4}", beams=3, max_tokens=12)
    assert set(beam.text) <= set("ab") and len(beam.text) == 4 and beam.complete
    assert "complete" not in model.generate("Rosa", max_tokens=1)[0].record()


def test_contradictions_and_unknown_names_are_refused(model):
    with pytest.raises(ConfigError, match="beems.*beams"):
        model.generate("Rosa", beems=3)
    with pytest.raises(ConfigError):
        model.generate("Rosa", beams=2, draft="lookup")
    with pytest.raises(ConfigError):
        model.generate("Rosa", regex="a", choice="b")
    with pytest.raises(ConfigError):
        model.generate("Rosa", temperature=0, top_k=3)
    with pytest.raises(ConfigError, match="cannot be streamed"):
        model.stream("Rosa", beams=2)


def test_bans_and_biases_are_texts_and_ids(model):
    [first] = model.generate("Rosa", max_tokens=1, temperature=0)
    [other] = model.generate("Rosa", max_tokens=1, temperature=0, ban_ids=first.tokens[0])
    assert other.tokens != first.tokens
    wanted = model.tokenizer.encode("l")[0]
    [raised] = model.generate("Rosa", max_tokens=1, temperature=0, bias={"l": 100.0})
    assert raised.tokens == [wanted] or raised.text.strip() == "l"


def test_a_single_failure_is_raised_and_one_of_several_is_told(model):
    broken = LanguageModel(Transformer.create(model.model.spec, 0).eval(), model.tokenizer, name="broken")
    with torch.no_grad():
        broken.model.embedding.weight[model.tokenizer.encode("Luis")[0]] = torch.nan
    with pytest.raises(ModelError):
        broken.generate("Luis", max_tokens=2)
    many = broken.generate(["Luis", "Luis"], max_tokens=2)
    assert [one.finish for one in many] == ["failed", "failed"] and "error" in many[0].record()
    json.dumps([one.record() for one in many])


@pytest.mark.parametrize("given", [{"temperature": 0}, {"seed": 5, "top_p": 0.9}, {"beams": 3}, {"draft": "lookup"}])
def test_what_was_looked_at_is_a_tree_that_can_be_computed_again(model, given):
    made, tree = recorded(model, "Rosa vende", max_tokens=6, **given)
    [plain] = model.generate("Rosa vende", max_tokens=6, **given)
    assert made[0].tokens == plain.tokens
    found = replay(tree, model.model)
    assert found.tokens > 0 and found.token < 1e-4
    answer = [node for node in tree.nodes if node.state == "chosen"]
    assert [id for node in answer for id in node.ids][-len(plain.tokens) :] == plain.tokens


def test_several_samples_share_what_they_have_in_common(model):
    made, tree = recorded(model, "Rosa", 6, max_tokens=4, seed=1)
    assert len(made) == 6 and len({tuple(one.tokens) for one in made}) > 1
    assert len(tree.nodes) - 1 < sum(len(one.tokens) for one in made) or len({one.tokens[0] for one in made}) == 6
    with pytest.raises(ConfigError, match="always finds the same"):
        recorded(model, "Rosa", 2, beams=3)
