"""What a constraint allows is what brute force finds, in every kind of tokenizer, and nothing else is drawn."""

import itertools
import json
import random
import re
from collections import Counter

import jsonschema
import llguidance
import pytest
import torch
from scipy.stats import chisquare

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import Constrainer, constrained
from amauta.decode.constrain.settings import Constraining
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.train import train_bpe
from tests.decode.constrain.toys import Toy, allowed, spelt, start, write
from tests.decode.toy import Markov
from tests.tokenize.conftest import texts
from tests.tokenize.foreign_tokenizers import MADE, NAMES
from tests.tokenize.foreign_tokenizers import write as write_tokenizer


def explore(tokenizer, constraint, stop, language, deepest, text=""):
    """Every token of every reachable state of at most ``deepest`` characters, against the language written out."""
    beginnings = {word[:end] for word in language for end in range(len(word) + 1)}

    def visit(constraint, text):
        pieces = [piece.decode() for piece in tokenizer.pieces]
        wanted = {id for id, piece in enumerate(pieces) if piece and text + piece in beginnings}
        assert allowed(constraint) == wanted | ({stop} if text in language else set()), text
        assert constraint.complete == (text in language)
        states = 1
        for id in wanted:
            if len(text + pieces[id]) <= deepest:
                twin = constraint.copy()
                twin.take(id)
                states += visit(twin, text + pieces[id])
        return states

    return visit(constraint, text)


REGEXES = ["a|ab", "(ab)*", "a{2,3}b?", "(a|b){3}", "a*b", "(aa|aab)*b", "b?", "(a(b)?)+", "^a.a$", "[^a]+|aba"]


@pytest.mark.parametrize("regex", REGEXES)
def test_exactly_the_tokens_that_keep_a_viable_beginning(regex):
    tokenizer = Toy("a", "b", "ab", "ba", "aab", "a", "", "<|end|>", "<|other|>", "abab")
    words = ("".join(word) for length in range(10) for word in itertools.product("ab", repeat=length))
    language = {word for word in words if re.fullmatch(regex, word)}
    assert explore(tokenizer, start(tokenizer, [7], regex=regex), 7, language, 4) > 1


def test_exactly_the_tokens_that_keep_a_viable_beginning_of_json():
    schema = {"type": "array", "items": {"enum": [1, "a"]}, "maxItems": 2}
    tokenizer = Toy("[", "]", "1", '"', "a", ",", " ", '["', '"a', "<|end|>", "1]")
    language = set()
    for length in range(1, 7):
        for word in map("".join, itertools.product('[]1"a, ', repeat=length)):
            try:
                jsonschema.validate(json.loads("[" + word), schema)
            except (ValueError, jsonschema.ValidationError):
                continue
            if not word.endswith(" "):  # none after the whole
                language.add("[" + word)
    constraint = start(tokenizer, [9], schema=json.dumps(schema))
    assert explore(tokenizer, constraint, 9, language, 2) == 7  # of "", "[", "[]", "[1", "[ ", and '["' by two ways


def test_characters_are_written_byte_by_byte_and_no_others():
    tokenizer = Toy(b"\xc3", b"\xa9", b"\xaa", "é", b"\xff", b"\xff\xfe", "a", "<|end|>", b"\xe2\x82", b"\xac")
    constraint = start(tokenizer, [7], regex="[éa]{2}")
    assert allowed(constraint) == {0, 3, 6}
    constraint.take(0)
    assert allowed(constraint) == {1}
    constraint.take(1)
    constraint.take(3)
    assert allowed(constraint) == {7} and constraint.finished
    assert allowed(start(Toy("٣", "3", "<|end|>"), [2], regex=r"\d")) == {1}  # not the digits of every script
    anything = start(tokenizer, [7], regex="(?s).*")
    assert allowed(anything) == {0, 3, 6, 7, 8}  # 0xFF is in no text
    anything.take(8)
    assert allowed(anything) == {9, 1, 2}  # within a character


def test_special_tokens_and_ids_beyond_the_tokenizer_are_never_text():
    tokenizer = Toy("a", "<|user|>", "<|end|>", "|", "<", ">", "user")
    anything = start(tokenizer, [2], more=40, regex="(?s).*")
    assert len(anything.mask()) == 47 and allowed(anything) == {0, 2, 3, 4, 5, 6}
    named = start(tokenizer, [2], more=40, grammar='start: "a" <|user|> "a"')
    for wanted, id in (({0}, 0), ({1}, 1), ({0}, 0)):
        assert allowed(named) == wanted
        named.take(id)
    assert allowed(named) == {2}


def test_a_stop_token_comes_where_the_text_may_end_whatever_it_is():
    tokenizer = Toy("a", "\n", "<|end|>", "b")
    constraint = start(tokenizer, [1, 2, 99], regex=r"a[\nb]{1,2}")  # the line end is no text when it ends the answer
    assert allowed(constraint) == {0}
    constraint.take(0)
    assert allowed(constraint) == {3}
    constraint.take(3)
    assert allowed(constraint) == {1, 2, 3} and constraint.complete and not constraint.finished
    constraint.take(1)
    assert constraint.complete
    inside = start(tokenizer, [2], grammar='start: "a" <|end|> "b"')  # a grammar may name a stop token
    inside.take(0)
    assert allowed(inside) == {2} and not inside.complete
    inside.take(2)
    assert not inside.complete


def test_a_model_without_stop_tokens_knows_when_it_has_finished():
    constraint = start(Toy("a", "b"), choice=("ab", "a"))
    constraint.take(0)
    assert allowed(constraint) == {1} and constraint.complete and not constraint.finished
    constraint.take(1)
    assert constraint.finished and allowed(constraint) == set()


def test_a_token_that_is_not_allowed_is_our_own_mistake():
    constraint = start(Toy("a", "b", "<|end|>"), [2], regex="ab")
    with pytest.raises(ValueError):
        constraint.copy().take(1)
    with pytest.raises(ValueError):
        constraint.copy().take(2)
    constraint.take(0)
    constraint.take(1)
    with pytest.raises(ValueError):
        constraint.take(0)  # after its end


def test_a_grammar_that_grows_too_complex_says_so(monkeypatch):
    def narrow(vocabulary, grammar):
        limits = llguidance.LLParserLimits(verbose_errors=False, max_items_in_row=50)
        return llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=limits)

    monkeypatch.setattr("amauta.decode.constrain.constraint._matcher", narrow)
    tokenizer = Toy("a", "b", "<|end|>")
    constraint = start(tokenizer, [2], grammar='start: s\ns: "a" | s s | s s s')
    with pytest.raises(ModelError) as told:
        for _ in range(40):
            assert 0 in allowed(constraint)
            constraint.take(0)
    assert told.value.key == "constrain.failed" and not constraint.complete
    assert str(told.value).startswith('After 10 tokens of the answer, "aaaaaaaaaa"')
    assert str(told.value.fields["reason"]).endswith("if it's right-recursive")


def test_an_error_shows_the_end_of_a_long_answer():
    constraint = start(Toy("a", "<|end|>"), [1], choice=("a" * 80 + "b",))
    for _ in range(80):
        constraint.take(0)
    with pytest.raises(ModelError) as told:
        constraint.mask()
    assert told.value.fields == {"text": "…" + "a" * 60, "tokens": 80}


def test_copies_are_independent():
    tokenizer = Toy("a", "b", "<|end|>")
    first = start(tokenizer, [2], regex="a(ab|ba)b?")
    first.take(0)
    second = first.copy()
    second.take(1)
    third = second.copy()
    first.take(0)
    third.take(0)
    assert [allowed(one) for one in (first, second, third)] == [{1}, {0}, {1, 2}]
    assert [one.complete for one in (first, second, third)] == [False, False, True]
    parent = start(tokenizer, [2], regex="aabq|abq")
    parent.take(0)
    child = parent.copy()
    for one, ids, text in ((parent, (0, 1), "aab"), (child, (1,), "ab")):
        for id in ids:
            one.take(id)
        with pytest.raises(ModelError) as told:
            one.mask()
        assert told.value.fields["text"] == text


def test_one_row_that_cannot_go_on_fails_alone():
    tokenizer = Toy("a", "b", "<|end|>")
    made = Constrainer(tokenizer, 3, [2]).start([
        Constraining(choice=("aqa",)), Constraining(regex="ab"), Constraining(), Constraining(choice=("aqa",)),
    ])  # fmt: skip
    for one in made[:2]:
        one.take(0)
    logits = torch.arange(12.0).reshape(4, 3)
    masked, faults = constrained(logits, made)
    assert list(faults) == [0] and faults[0].key == "constrain.stuck" and faults[0].fields["text"] == "a"
    inf = -torch.inf
    assert masked.tolist() == [[0, 1, 2], [inf, 4, inf], [6, 7, 8], [9, inf, inf]]
    assert logits[1, 0] == 3  # the input is as it was
    assert constrained(logits, [None] * 4)[0] is logits
    with pytest.raises(ModelError) as told:
        start(tokenizer, [2], choice=("qa",))
    assert told.value.key == "constrain.stuck" and told.value.fields["tokens"] == 0


def test_what_must_come_is_drafted_in_the_tokenizers_spelling():
    tokenizer = train_bpe(texts(0, 200), 320)
    ids = tokenizer.encode("weaver sells")
    constraint = start(tokenizer, tokenizer.stops, choice=("weaver sells é", "weaver sells wool"))
    drafted = constraint.forced()
    assert drafted[:2] == ids[:2] and "weaver sells ".startswith(spelt(tokenizer, drafted))
    for id in drafted:
        assert id in allowed(constraint)
        constraint.take(id)
    assert start(tokenizer, tokenizer.stops, regex="[ab]").forced() == []


def test_the_sampled_distribution_is_the_models_renormalised():
    torch.manual_seed(0)
    tokenizer, stop, regex, n = Toy("a", "b", "ab", "<|end|>"), 3, "(a|b){2}|ab+", 4000
    model = Markov(torch.randn(4, 4))
    language = {word for length in range(7) for word in map("".join, itertools.product("ab", repeat=length))
                if re.fullmatch(regex, word)}  # fmt: skip
    beginnings = {word[:end] for word in language for end in range(len(word) + 1)}
    expected = {}

    def follow(last, text, ids, p):
        if len(ids) == 3:  # compared up to three tokens
            expected[ids] = p
            return
        pieces = {id: text + piece.decode() for id, piece in enumerate(tokenizer.pieces)}
        fits = {id: whole for id, whole in pieces.items() if (whole in beginnings if id != stop else text in language)}
        odds = torch.softmax(model.table[last, list(fits)].double(), 0).tolist()
        for (id, whole), q in zip(fits.items(), odds, strict=True):
            if id == stop:
                expected[(*ids, id)] = p * q
            else:
                follow(id, whole, (*ids, id), p * q)

    follow(0, "", (), 1.0)
    made = Constrainer(tokenizer, 4, [stop]).start([Constraining(regex=regex)] * n)
    counts = Counter(tuple(ids) for ids in write(model, [[0]] * n, made, [stop], most=3, seed=5))
    assert set(counts) == set(expected) and len(expected) == 8
    names = sorted(expected)
    assert chisquare([counts[one] for one in names], [expected[one] * n for one in names]).pvalue > 1e-3


def test_choices_are_allowed_as_by_transformers_prefix_processor():
    transformers = pytest.importorskip("transformers")
    tokenizer = train_bpe(texts(0, 200), 320)
    choices = ("weaver", "weavers", "wool at 12", "we")

    def follow(row, ids):
        text = spelt(tokenizer, ids.tolist())
        found = [id for id in range(tokenizer.size)
                 if (piece := tokenizer.token_bytes(id)) and any(c.encode().startswith(text.encode() + piece)
                                                                for c in choices)]  # fmt: skip
        return found + (list(tokenizer.stops) if text in choices else [])

    theirs = transformers.PrefixConstrainedLogitsProcessor(follow, num_beams=1)
    constraint, ids, chance = start(tokenizer, tokenizer.stops, choice=choices), [], random.Random(1)
    for _ in range(4):
        logits = torch.randn(1, tokenizer.size)
        ours, _ = constrained(logits, [constraint])
        assert torch.equal(ours, theirs(torch.tensor([ids], dtype=torch.long), logits))
        id = chance.choice([id for id in allowed(constraint) if id not in tokenizer.stops])
        constraint.take(id)
        ids.append(id)


@pytest.mark.parametrize("name", ["ours", *MADE])
def test_every_kind_of_tokenizer_spells_exactly_what_is_asked(name, tmp_path):
    if name == "ours":
        tokenizer = train_bpe(texts(0, 200), 320)
    else:
        tokenizer = load_tokenizer(write_tokenizer(tmp_path, MADE[name](), NAMES[name]))
    wide = name in ("ours", "byte-level", "byte-level with a first token", "roberta", "llama")  # can write any text
    asked = ["the weaver", "the wool at 12", "market don't", *(["thé 東京 🦙", "\n\t{}"] if wide else [])]
    whole = [b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) for text in asked]
    drafted = start(tokenizer, [], choice=(whole[0].decode(),))
    for id in drafted.forced():
        assert id in allowed(drafted)
        drafted.take(id)
    chance, stop, ends = random.Random(0), tokenizer.size + 3, 0  # the end stands in the padding
    for seed in range(6):
        constraint, done = start(tokenizer, [stop], more=9, choice=tuple(one.decode() for one in whole)), b""
        while done not in whole or (seed % 2 and not constraint.finished):
            wanted = {
                id
                for id in range(tokenizer.size)
                if id not in tokenizer.special
                and (piece := tokenizer.token_bytes(id))
                and any(one.startswith(done + piece) for one in whole)
            }
            if not wanted and done not in whole:  # "market": this vocabulary has no space that begins a token
                assert name == "word ends"
                with pytest.raises(ModelError):
                    constraint.mask()
                break
            assert allowed(constraint) == wanted | ({stop} if done in whole else set())
            id = chance.choice(sorted(wanted))
            constraint.take(id)
            done += tokenizer.token_bytes(id)
        else:
            assert constraint.complete
            constraint.take(stop)
            ends += 1
    assert ends == 6 or (ends > 0 and name == "word ends")
