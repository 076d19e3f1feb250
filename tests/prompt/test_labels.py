import json
import math
import random
from itertools import product

import pytest
import torch
from scipy.stats import t as students_t
from sklearn.metrics import f1_score

from amauta.base.errors import ConfigError, ModelError
from amauta.prompt.conditions import CHANGES, WORDS, other_words, partly_correct
from amauta.prompt.labels import calibrated, experiment, label_rows, macro_f1, shares
from amauta.prompt.scoring import Row, logprobs, row_of, shared
from amauta.prompt.settings import LabelExperiment
from amauta.prompt.task import Example, Task
from amauta.prompt.template import LINES, QUESTION, Shot, compose
from tests.decode.toy import Markov
from tests.prompt.lettered import ALPHABET, Lettered, random_transformer

LABELS = ("a", "b", "c")
SHOTS = [Shot(f"x{'y' * i}", LABELS[i % 3]) for i in range(12)]


def markov(seed=0, **given):
    table = torch.randn(len(ALPHABET), len(ALPHABET), generator=torch.Generator().manual_seed(seed)) * 2
    return Lettered(Markov(table, 512), **given), table.log_softmax(-1)


# --- scoring ---------------------------------------------------------------------------------------------------------


def test_an_answer_costs_the_sum_of_its_tokens():
    model, table = markov()
    [found] = logprobs(model, [row_of(model, "xy\n", "ab.")])
    path = [ALPHABET.index(letter) for letter in "\nab."]
    assert found == pytest.approx(sum(table[i, j].item() for i, j in zip(path, path[1:], strict=False)), abs=1e-5)


def test_all_answers_together_have_probability_one():
    """Enumeration: every answer of two letters after one prompt."""
    model, _ = markov(3)
    rows = [row_of(model, "x", "".join(pair)) for pair in product(ALPHABET, repeat=2)]
    assert math.fsum(map(math.exp, logprobs(model, rows))) == pytest.approx(1, abs=1e-5)


def test_reading_shared_beginnings_once_changes_nothing():
    """Against the whole row read anew each time, over rows that share much, little and nothing, in any order."""
    inner = random_transformer()
    model, source = Lettered(inner), random.Random(0)
    texts = ["".join(source.choices(ALPHABET, k=source.randint(2, 6))) for _ in range(6)]
    rows = []
    for _ in range(25):
        ids = model.tokenizer.encode("".join(source.choices(texts, k=source.randint(1, 4))))
        rows.append(Row(ids, source.randint(1, len(ids) - 1)))
    expected = [inner.score(row.ids)[row.start - 1 :].sum().item() for row in rows]
    assert logprobs(model, rows) == pytest.approx(expected, abs=1e-4)


def test_demonstrations_are_read_once():
    model, _ = markov()
    prompt = "xy\na\n\n" * 10
    rows = [row_of(model, f"{prompt}{question}\n", label) for question in ("x", "xx", "y") for label in LABELS]
    logprobs(model, rows)
    assert sum(rows_ * tokens for rows_, tokens in model.model.passes) < len(prompt) + 3 * len(rows)


def test_models_without_a_cache_score_the_same():
    transformer = random_transformer(1)
    rows = [row_of(Lettered(transformer), "xyz\n", label) for label in ("a", "bb", "c.")]
    cached = logprobs(Lettered(transformer), rows)

    class Uncached:
        score = staticmethod(transformer.score)
        spec = transformer.spec

    assert logprobs(Lettered(Uncached()), rows) == pytest.approx(cached, abs=1e-4)


def test_a_token_over_the_border_belongs_to_the_answer():
    model = Lettered(random_transformer(2, size=len(ALPHABET) + 1), merged=("\na",))
    row = row_of(model, "x\n", "ab")
    assert model.tokenizer.decode(row.ids[: row.start]) == "x" and model.tokenizer.decode(row.ids) == "x\nab"
    assert row_of(model, "x\n", "b").start == 2
    assert shared([1, 2], [1, 2, 3]) == 2 and shared([], [1]) == 0 and shared([2], [1]) == 0


def test_what_cannot_be_scored():
    model, _ = markov()
    for prompt, answer in (("x", ""), ("", "a")):
        with pytest.raises(ModelError) as caught:
            row_of(model, prompt, answer)
        assert caught.value.key == "prompt.nothing-to-score"
    with pytest.raises(ModelError) as caught:
        logprobs(Lettered(random_transformer(), kind="encoder"), [Row([1, 2], 1)])
    assert caught.value.key == "prompt.cannot-score"
    with pytest.raises(ModelError) as caught:
        logprobs(Lettered(random_transformer(), context=2), [Row([1, 2, 3], 1)])
    assert caught.value.key == "prompt.too-long"


# --- labels ----------------------------------------------------------------------------------------------------------


def test_direct_and_channel_by_hand():
    model, table = markov(5)
    prompt = compose(LINES, Example("xy", ""), [Example("z", "a"), Example("y", "b")])
    rows, dropped = label_rows(model, prompt, LABELS, "direct")
    assert [model.tokenizer.decode(row.ids) for row in rows] == [f"z\na\n\ny\nb\n\nxy\n{label}" for label in LABELS]
    end = ALPHABET.index("\n")
    assert logprobs(model, rows) == pytest.approx([table[end, ALPHABET.index(one)].item() for one in LABELS], abs=1e-5)
    rows, dropped = label_rows(model, prompt, LABELS, "channel")
    assert [model.tokenizer.decode(row.ids) for row in rows] == [f"a\nz\n\nb\ny\n\n{label}\nxy" for label in LABELS]
    x, y = ALPHABET.index("x"), ALPHABET.index("y")
    assert logprobs(model, rows) == pytest.approx([(table[end, x] + table[x, y]).item()] * 3, abs=1e-5)
    assert dropped == 0


def test_the_space_before_a_label_is_part_of_it():
    model = Lettered(random_transformer())
    model.tokenizer.pieces_ = (*"abcxyz. \nQA:",)
    [row], _ = label_rows(model, compose(QUESTION, Example("x", "")), ["a"], "direct")
    assert model.tokenizer.decode(row.ids) == "Q: x\nA: a" and model.tokenizer.decode(row.ids[row.start :]) == " a"


def test_demonstrations_that_do_not_fit_are_dropped_for_all_labels_alike():
    model, _ = markov(context=16)
    prompt = compose(LINES, Example("xy", ""), [Example("z", "a"), Example("y", "b")])
    rows, dropped = label_rows(model, prompt, ["a", "abc"], "direct")
    assert dropped == 1
    assert [model.tokenizer.decode(row.ids) for row in rows] == ["y\nb\n\nxy\na", "y\nb\n\nxy\nabc"]


def test_shares_and_calibration_by_hand():
    assert shares([math.log(0.2), math.log(0.6)]) == pytest.approx([0.25, 0.75])
    assert shares([-1000.0, -1000.0, -2000.0]) == pytest.approx([0.5, 0.5, 0])
    # .7/.8 and .3/.2, normalised: .875/2.375 and 1.5/2.375
    assert calibrated([0.7, 0.3], [[0.8, 0.2]]) == pytest.approx([0.368421, 0.631579], abs=1e-6)
    assert calibrated([0.7, 0.3], [[0.9, 0.1], [0.7, 0.3]]) == pytest.approx([0.368421, 0.631579], abs=1e-6)
    assert calibrated([0.7, 0.3], [[0.5, 0.5]]) == pytest.approx([0.7, 0.3])


def test_macro_f1_is_that_of_another_library():
    source = random.Random(0)
    for _ in range(20):
        right, given = (source.choices(LABELS, k=9) for _ in range(2))
        assert macro_f1(right, given, LABELS) == pytest.approx(
            f1_score(right, given, labels=list(LABELS), average="macro", zero_division=0)
        )


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_condition_keeps(name: str):
    made = CHANGES[name](SHOTS, LABELS, random.Random(0))
    assert made == CHANGES[name](SHOTS, LABELS, random.Random(0))  # the seed decides
    assert len(made) == (0 if name == "none" else len(SHOTS))
    same_inputs = [shot.question for shot in made] == [shot.question for shot in SHOTS]
    assert same_inputs == (name in ("gold", "random", "random-words", "inputs-only"))
    assert all(shot.answer in ("",) if name == "inputs-only" else shot.answer in LABELS for shot in made)
    if name == "labels-only":
        assert not any(shot.question for shot in made)
    if name == "other-inputs":
        assert len({shot.question for shot in made}) == len(SHOTS)
    assert (made == SHOTS) == (name == "gold")


def test_random_labels_are_uniform_and_independent():
    counts = {(shot.answer, label): 0 for shot in SHOTS for label in LABELS}
    for seed in range(500):
        for shot, changed in zip(SHOTS, CHANGES["random"](SHOTS, LABELS, random.Random(seed)), strict=True):
            counts[shot.answer, changed.answer] += 1
    assert all(abs(count - 2000 / 3) < 110 for count in counts.values())  # 5 standard deviations are 105


@pytest.mark.parametrize(("percent", "right"), [(0, 0), (25, 3), (50, 6), (74, 8), (75, 9), (100, 12)])
def test_so_many_per_cent_correct(percent: int, right: int):
    kept = set()
    for seed in range(30):
        made = partly_correct(percent)(SHOTS, LABELS, random.Random(seed))
        same = [i for i, (one, other) in enumerate(zip(made, SHOTS, strict=True)) if one == other]
        assert len(same) == right and all(shot.answer in LABELS for shot in made)
        kept |= set(same)
    assert kept == (set(range(12)) if right else set())


def test_words_in_place_of_labels():
    words = other_words(LABELS, random.Random(0))
    assert len(set(words)) == 3 and set(words) <= set(WORDS) and words != other_words(LABELS, random.Random(1))


# --- the experiment --------------------------------------------------------------------------------------------------


class Copier(torch.nn.Module):
    """Looks up the letters since the last blank line in what came before, and writes what followed them there: the
    purest in-context learner. What it has not seen it answers with its habits: a .5, b .3, c .2."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def score(self, ids):
        return torch.stack([self._next(list(ids[: t + 1]))[id] for t, id in enumerate(ids[1:])])

    def _next(self, ids):
        text = "".join(ALPHABET[id] for id in ids)
        before, _, question = text.rpartition("\n\n")
        p = torch.full((len(ALPHABET),), 1e-6)
        p[:3] = torch.tensor([0.5, 0.3, 0.2])
        found = f"\n\n{before}\n\n".partition(f"\n\n{question}")
        if question.endswith("\n") and found[1] and found[2][:1] in ("a", "b", "c"):
            p[ALPHABET.index(found[2][0])] += 9
        return (p / p.sum()).log()


KNOWN = tuple(Example("xyz"[i % 3] * (1 + i // 3), LABELS[i % 3]) for i in range(12))


def task_of(examples=KNOWN):
    return Task("letters", examples=lambda count, seed: list(examples[:count]), demonstrations=KNOWN, template=LINES,
                labels=LABELS)  # fmt: skip


def settings(**given):
    return LabelExperiment(**{"task": "-", "model": "-", "shots": 12, "examples": 12, "seeds": 4, **given})


def test_a_learner_by_copying_needs_right_labels():
    """It answers what the demonstration of the same question says: all right with gold, about a third with random,
    what is wrong with 0-correct, its habit (a, in a third of all) without demonstrations."""
    found = experiment(Lettered(Copier()), task_of(), settings(correct=(50, 0)))
    accuracy = {name: one["accuracies"] for name, one in found["conditions"].items()}
    assert accuracy["gold"] == [1.0] * 4 and accuracy["none"] == [pytest.approx(1 / 3)]
    assert accuracy["50-correct"] == [0.5] * 4 and accuracy["0-correct"] == [0.0] * 4
    assert 0.1 < found["conditions"]["random"]["accuracy"] < 0.6
    difference = found["gold_minus_random"]
    values = [1 - one for one in accuracy["random"]]
    low, high = students_t.interval(0.95, 3, sum(values) / 4, torch.tensor(values).std().item() / 2)
    assert difference == pytest.approx({"accuracy": sum(values) / 4, "low": low, "high": high})
    assert "larger models follow false labels more" in found["caveat"]


def test_each_seed_draws_demonstrations_and_conditions_share_them():
    model, seen = Lettered(Copier()), []

    def score(ids):
        seen.append(model.tokenizer.decode(ids))
        return torch.full((len(ids) - 1,), -1.0)

    model.model.score = score
    experiment(model, task_of(), settings(shots=3, seeds=4, examples=1, conditions=("gold", "inputs-only")))
    shown = [tuple(part.split("\n")[0] for part in text.split("\n\n")[:-1]) for text in seen[::3]]
    assert len(shown) == 8 and all(len(one) == 3 for one in shown)
    assert shown[:4] == shown[4:] and len(set(shown[:4])) == 4


def test_what_is_written_of_an_experiment(tmp_path):
    out = tmp_path / "rows.jsonl"
    found = experiment(Lettered(Copier()), task_of(), settings(out=out, seeds=2, conditions=("gold",)))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 24 and all(row["answer"] == row["right"] for row in rows)
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert max(row["logprobs"], key=row["logprobs"].get) == row["answer"]
    assert "gold_minus_random" not in found and found["conditions"]["gold"]["macro_f1"] == 1
    assert found["conditions"]["gold"]["accuracy_std"] == 0


def test_one_draw_has_the_interval_over_examples():
    one = experiment(Lettered(Copier()), task_of(), settings(conditions=("none",)))["conditions"]["none"]
    assert one["draws"] == 1 and (one["accuracy_low"], one["accuracy_high"]) == pytest.approx(
        (0.1381, 0.6094), abs=1e-3
    )
    assert one["macro_f1"] == pytest.approx((2 * 4 / (4 + 12)) / 3) and one["macro_f1_low"] is None


def test_calibration_takes_the_habit_away():
    """Without demonstrations the answer is always a; divided by the habit all labels are equal, and the first is taken.
    One question is answered b with .36: over the habit's .3 that is the highest."""

    class Leaning(Copier):
        def _next(self, ids):
            p = super()._next(ids).exp()
            if ALPHABET[ids[0]] == "y":
                p[1] += 0.08
            return (p / p.sum()).log()

    asked = [Example("y", "b"), Example("x", "a")]
    given = {"conditions": ("none",), "examples": 2, "content_free": ("z", "")}
    plain = experiment(Lettered(Leaning()), task_of(asked), settings(**given))["conditions"]["none"]
    assert plain["accuracy"] == 0.5
    found = experiment(Lettered(Leaning()), task_of(asked), settings(calibrate=True, **given))["conditions"]["none"]
    assert found["accuracy"] == 1.0


def test_random_words_are_looked_for_among_themselves():
    class Worded(Lettered):
        pass

    model = Worded(Copier())
    seen = []

    def score(ids):
        seen.append(model.tokenizer.decode(ids))
        return torch.full((len(ids) - 1,), -1.0)

    model.model.score = score
    model.tokenizer.pieces_ = (*"abcdefghijklmnopqrstuvwxyz. \n",)
    experiment(model, task_of(), settings(conditions=("random-words",), seeds=1, examples=1))
    last = {text.rsplit("\n", 1)[1] for text in seen}
    assert len(last) == 3 and last <= set(WORDS)
    shown = {part.split("\n")[1] for part in seen[0].split("\n\n")[:-1]}
    assert shown <= last


def test_mistakes_are_told():
    model = Lettered(Copier())
    for given, key in [
        ({"calibrate": True, "inference": "channel"}, "prompt.calibrated-channel"),
        ({"correct": (101,)}, "prompt.bad-percent"),
        ({"shots": 13}, "prompt.too-few-demonstrations"),
    ]:
        with pytest.raises(ConfigError) as caught:
            experiment(model, task_of(), settings(**given))
        assert caught.value.key == key
    with pytest.raises(ConfigError) as caught:
        experiment(model, Task("bare", examples=lambda count, seed: []), settings())
    assert caught.value.key == "prompt.no-labels"
