import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import amauta
from amauta.base.errors import ConfigError, ModelError
from amauta.language_model import LanguageModel
from amauta.models.ngram import NGram
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.chat import render
from amauta.tokenize.train import train_bpe

TEXTS = ["Rosa vende lana en el mercado.", "Luis teje un poncho rojo.", "El año pasado llovió mucho."] * 4
DIALOGUE = [{"role": "user", "content": "¿Dónde vive Rosa?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 300)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A run with a random model whose distributions are far from flat."""
    spec = Spec(vocabulary=300, context=64, width=32, layers=2, heads=4, kv_heads=2, init_std=0.3)
    place = tmp_path_factory.mktemp("run") / "model"
    LanguageModel(Transformer.create(spec, 0), tokenizer).save(place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    return amauta.load(folder.parent, device="cpu")  # the run's folder stands for its model


def test_greedy_generation_equals_that_of_transformers(model, folder):
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = AutoTokenizer.from_pretrained(folder)
    prompt = "Rosa vende"
    ids = [names.bos_token_id, *names.encode(prompt, add_special_tokens=False)]
    expected = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
    [one] = model.generate([prompt], max_tokens=20, temperature=0)
    assert one.tokens == expected
    assert one.text == names.decode(expected, skip_special_tokens=True)
    assert one.prompt_tokens == len(ids)


def test_a_batch_of_any_size_gives_the_same_in_the_order_of_the_prompts(model):
    prompts = ["Rosa", "Luis teje un poncho rojo", "", "El año pasado", "Rosa"]
    one, all = (model.generate(prompts, batch=size, max_tokens=10, seed=5) for size in (1, 5))
    for a, b, i in zip(one, all, range(5), strict=True):
        assert a.tokens == b.tokens and a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.settings["seed"] == 5 + i
    [alone] = model.generate([prompts[3]], **{**all[3].settings})
    assert alone.tokens == all[3].tokens  # the printed settings repeat a result


def test_the_settings_that_held_are_told_with_their_source(folder, tokenizer, tmp_path):
    amauta.load(folder).save(tmp_path / "copy")
    path = tmp_path / "copy" / "generation_config.json"
    config = {**json.loads(path.read_text()), "temperature": 0.6, "top_k": 7, "max_new_tokens": 3, "top_p": None}
    path.write_text(json.dumps(config))
    other = amauta.load(tmp_path / "copy")
    [one] = other.generate("Rosa", temperature=0.2)
    assert (one.settings["temperature"], one.sources["temperature"]) == (0.2, "argument")
    assert (one.settings["top_k"], one.sources["top_k"]) == (7, "generation_config.json")
    assert (one.settings["top_p"], one.sources["top_p"]) == (1.0, "default")
    assert len(one.tokens) <= one.settings["max_tokens"] == 3
    path.write_text(json.dumps({"do_sample": False, "eos_token_id": 9}))
    greedy = amauta.load(tmp_path / "copy")
    assert greedy.generate("Rosa")[0].settings["temperature"] == 0
    assert greedy.stop_ids == {9, tokenizer.end, tokenizer.turn}
    path.write_text(json.dumps({"top_p": 7}))
    with pytest.raises(ConfigError, match=r"(?s)generation_config.json.*top_p"):
        amauta.load(tmp_path / "copy")


def test_unknown_and_bad_settings_are_errors(model):
    with pytest.raises(ConfigError, match="temperature"):
        model.generate("Rosa", temprature=1)
    with pytest.raises(ConfigError, match="top_p"):
        model.generate("Rosa", top_p=0)


def test_a_chat_is_laid_out_as_in_training(model):
    answer = model.chat(DIALOGUE, temperature=0, max_tokens=12)
    ids = render(model.tokenizer, DIALOGUE, reply=True).ids
    [same] = model.generate([ids], temperature=0, max_tokens=12)
    assert answer.tokens == same.tokens and answer.prompt_tokens == len(ids)


def test_an_answer_ends_at_the_turn_token_which_is_not_shown(model, tokenizer):
    made = LanguageModel(Transformer.create(model.model.spec, 0), tokenizer)
    turn = torch.nn.functional.one_hot(torch.tensor(tokenizer.turn), 300)
    made.model.logits = lambda hidden: turn.expand(*hidden.shape[:-1], 300)  # a model that has nothing to say
    answer = made.chat(DIALOGUE, temperature=0)
    assert (answer.text, answer.tokens, answer.finish) == ("", [tokenizer.turn], "stop")


def test_a_stream_joined_is_the_answer_and_can_be_closed(model):
    answer = model.stream("Luis", max_tokens=30, seed=3)
    text = "".join(answer)
    [whole] = model.generate("Luis", max_tokens=30, seed=3)
    assert text == answer.result.text == whole.text and answer.result.tokens == whole.tokens
    early = model.stream("Luis", max_tokens=30, seed=3)
    for _ in early:
        break
    early.close()
    assert early.result.finish == "cancelled"
    assert 0 < len(early.result.tokens) < 30 and whole.text.startswith(early.result.text)


def test_stop_texts_are_cut_off(model):
    [whole] = model.generate("Luis", max_tokens=30, seed=3)
    stop = whole.text[4:6]
    [cut] = model.generate("Luis", max_tokens=30, seed=3, stop=stop)
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish == "stop-string"


def history(count):
    return [{"role": role, "content": f"{role} {i}"} for i in range(count) for role in ("user", "assistant")]


def test_a_history_that_does_not_fit_loses_its_oldest_exchanges(model):
    system = {"role": "system", "content": "breve"}
    messages = [system, *history(6), {"role": "user", "content": "hoy"}]
    with pytest.raises(ModelError, match="the model reads at most 64"):
        model.chat(messages, max_tokens=8)
    answer = model.chat(messages, max_tokens=8, truncate="left", temperature=0)
    assert 0 < answer.dropped_messages < 13 and answer.dropped_messages % 2 == 0 and answer.dropped_tokens == 0
    seen = [system, *messages[1 + answer.dropped_messages :]]
    assert answer.prompt_tokens == len(render(model.tokenizer, seen, reply=True).ids) <= 64 - 8
    one_more = [system, *messages[answer.dropped_messages - 1 :]]
    assert len(render(model.tokenizer, one_more, reply=True).ids) > 64 - 8  # no more was dropped than had to be
    assert model.chat(seen, max_tokens=8, temperature=0).tokens == answer.tokens
    with pytest.raises(ModelError, match="newest message"):
        model.chat([*history(1), {"role": "user", "content": "ñandú " * 40}], truncate="left")


def test_a_prompt_that_does_not_fit_is_cut_and_counted(model):
    [one] = model.generate(["ñ" * 200], truncate="left", max_tokens=10)
    assert one.dropped_tokens > 0 and one.prompt_tokens == 64 - 10


def test_scores_are_those_of_the_model_one_by_one(model):
    texts = ["Rosa vende lana", "", "El año", "Luis teje un poncho"]
    for end in (False, True):
        for text, scored in zip(texts, model.score(texts, end=end, batch=3), strict=True):
            ids = model.tokenizer.document(text) if end else model.tokenizer.document(text)[:-1]
            assert scored.tokens == ids[1:]
            assert scored.logprobs == pytest.approx(model.model.score(ids).tolist() if len(ids) > 1 else [], abs=1e-5)
    with pytest.raises(ModelError, match="Text 2 of 2"):
        model.score(["Rosa", "ñ" * 200])


def test_generated_logprobs_are_the_scores_of_the_same_tokens(model):
    [one] = model.generate("Rosa", max_tokens=20, seed=1, temperature=0.8, top_k=20)
    ids = [model.tokenizer.begin, *model.tokenizer.encode("Rosa")]
    assert one.logprobs == pytest.approx(model.model.score([*ids, *one.tokens])[len(ids) - 1 :].tolist(), abs=1e-4)
    for t, token in enumerate(one.tokens):
        top = (model.model.next_logprobs([*ids, *one.tokens[:t]]) / 0.8).topk(20)
        place = top.indices.tolist().index(token)  # only the 20 likeliest were drawn
        assert one.sampled_logprobs[t] == pytest.approx(float(top.values.log_softmax(-1)[place]), abs=1e-4)


def test_logits_have_their_shape_and_bad_ids_their_row(model):
    ids = [[1, 2, 3], [4, 5, 6]]
    logits = model.logits(torch.tensor(ids))
    assert logits.shape == (2, 3, 300)
    torch.testing.assert_close(logits[1, -1].log_softmax(-1), model.model.next_logprobs([4, 5, 6]), atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="Row 2 of 2, position 1: token id 300"):
        model.logits([[1, 2], [3, 300]])
    with pytest.raises(ModelError, match="Row 2 of 2 has 1 ids and the first row has 2"):
        model.logits([[1, 2], [3]])
    with pytest.raises(ModelError, match="from 1 to 64"):
        model.logits([[1] * 65])


def test_a_decoder_embeds_by_the_mean_of_its_states(model, tokenizer):
    texts = ["Rosa", "Luis teje un poncho rojo.", "", "Rosa vende lana en el mercado."]
    found = model.embed(texts)
    for text, vector in zip(texts, found, strict=True):
        ids = [tokenizer.begin, *tokenizer.encode(text), tokenizer.end]
        torch.testing.assert_close(vector, model.hidden([ids])[0].mean(0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ModelError, match="Text 2 of 2 has 102 tokens.*from 1 to 64"):
        model.embed(["a", "b" * 100])
    assert model.embed("b" * 100, truncate="right").equal(model.embed("b" * 62))


def test_saving_gives_the_same_model_and_spares_other_folders(model, folder, tmp_path):
    (folder / "card.json").write_text('{"lineage": []}')
    model.save(tmp_path / "copy")
    model.save(tmp_path / "copy")  # over an older model: replaced
    assert (tmp_path / "copy" / "card.json").read_text() == '{"lineage": []}'
    [a], [b] = (m.generate("Rosa", max_tokens=9) for m in (model, amauta.load(tmp_path / "copy")))
    assert a.tokens == b.tokens and a.logprobs == b.logprobs
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="no model folder"):
        model.save(tmp_path / "mine")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_tokenizer_of_another_model_is_refused(model, tmp_path):
    spec = Spec(vocabulary=280, context=16, width=16, layers=1, heads=2)
    model_folder = tmp_path / "model"
    LanguageModel(Transformer.create(spec, 0), model.tokenizer).save(model_folder)
    with pytest.raises(ModelError, match="300 entries and the model only 280"):
        amauta.load(model_folder)


def test_an_ngram_folder_loads_generates_and_scores(tokenizer, tmp_path):
    documents = [tokenizer.document(text) for text in TEXTS]
    made = NGram.train(documents, size=tokenizer.size, begin=tokenizer.begin, order=3, tokenizer=tokenizer)
    made.save(tmp_path / "n")
    ngram = amauta.load(tmp_path / "n")
    [one] = ngram.generate("Luis", temperature=0, max_tokens=40)
    assert "Luis" + one.text == "Luis teje un poncho rojo." and one.finish == "stop"
    [scored] = ngram.score(["Luis teje"])
    assert scored.logprobs == pytest.approx(ngram.model.score([tokenizer.begin, *scored.tokens]).tolist())
    ids = [[tokenizer.begin, *scored.tokens[:2]]]
    assert ngram.logits(ids).exp().sum(-1).tolist()[0] == pytest.approx([1.0] * 3)
    with pytest.raises(ModelError, match="counts n-grams"):
        ngram.embed(["Luis"])
