"""Answers at once, chains of thought, votes."""

import math

import pytest

from amauta.base.errors import ConfigError, ModelError
from amauta.config import build
from amauta.decode.tree.tree import Tree
from amauta.prompt.chain import chain
from amauta.prompt.direct import direct, few_shot
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.vote import Ballot, best_of_n, count, same, self_consistency
from tests.prompt.scripted import Scripted

SHOWN = Example("5 + 2*3", "11", {"reasoning": "2*3 is 6. 5 + 6 is 11."})
BARE = Example("1 + 1", "2")
ASKED = Example("23 - 20 + 6", "9")
TASK = Task("sums", examples=lambda count, seed: [ASKED], demonstrations=(SHOWN,))
ZERO = "Q: 23 - 20 + 6\nA:"
THINK = f"{ZERO} Let's think step by step."
FEW = "Q: 5 + 2*3\nA: 2*3 is 6. 5 + 6 is 11. The answer is 11.\n\nQ: 23 - 20 + 6\nA:"


def settings(**given):
    return build(Prompting, {"layout": "plain", **given})


def test_direct_prompting_and_its_wrong_answer():
    """The pair of the reference: 27 for an answer at once."""
    model = Scripted({ZERO: (" 27\n\nQ: another", -3.0)})
    outcome = direct(model, TASK, ASKED, settings())
    assert outcome.answer == "27" and outcome.text == " 27" and TASK.grade(ASKED, outcome.answer) == 0
    assert (outcome.calls, outcome.generated_tokens, outcome.read_tokens) == (1, 3, len(ZERO))
    assert model.asked[0][1] == {"max_tokens": 32, "temperature": 0.0, "stop": ("\n\n", "\nQ:")}
    assert outcome.facts["demonstrations"] == [] and outcome.facts["template"] == "question"
    assert outcome.tree.logprob(1) == pytest.approx(-3.0) and outcome.tree.nodes[1].state == "chosen"


def test_few_shot_shows_what_the_task_has():
    prompt = f"Q: 5 + 2*3\nA: 11\n\n{ZERO}"
    outcome = few_shot(Scripted({prompt: " 9"}), TASK, ASKED, settings())
    assert outcome.answer == "9" and outcome.facts["demonstrations"] == [0]
    assert few_shot(Scripted({ZERO: " 9"}), TASK, ASKED, settings(shots=0)).facts["demonstrations"] == []


def test_what_the_user_says_holds():
    model = Scripted({ZERO: " 9 or so"})
    direct(model, TASK, ASKED, settings(sampling={"max_tokens": 5, "temperature": 0.5, "stop": [" or"], "seed": 8}))
    assert model.asked[0][1] == {"max_tokens": 5, "temperature": 0.5, "stop": (" or",), "seed": 8}
    direct(model, TASK, ASKED, settings(constraining={"regex": "[0-9 a-z]+"}))
    assert model.asked[1][1]["regex"] == "[0-9 a-z]+"


def test_dropped_demonstrations_are_told():
    model = Scripted({ZERO: " 9"}, context=len(ZERO) + 32)
    assert few_shot(model, TASK, ASKED, settings()).facts["dropped"] == 1
    with pytest.raises(ModelError):
        few_shot(Scripted({}, context=len(ZERO) + 31), TASK, ASKED, settings())


def test_zero_shot_chain_of_thought_is_two_calls():
    first = " 23 - 20 is 3.\n\n3 + 6 is 9. "
    second = f"{THINK} 23 - 20 is 3.\n\n3 + 6 is 9.\nTherefore, the answer is"
    model = Scripted({THINK: f"{first}\nQ: no more", second: " 9. Not 27."})
    outcome = chain(model, TASK, ASKED, settings())
    assert outcome.answer == "9" and outcome.calls == 2
    assert outcome.text == f"{second[len(ZERO) + 1 :]} 9. Not 27."
    assert model.asked[0][1]["stop"] == ("\nQ:",)  # reasoning may have paragraphs
    assert model.asked[1][1] | {"stop": ()} == {"max_tokens": 32, "temperature": 0.0, "stop": ()}
    assert outcome.generated_tokens == model.generated and outcome.read_tokens == model.read == len(THINK) + len(second)
    assert [node.kind for node in outcome.tree.nodes] == ["prompt", "thought", "answer"]
    assert outcome.tree.budget == {"generated": model.generated, "read": model.read, "calls": 2}
    assert model.tokenizer.decode(outcome.tree.nodes[2].facts["given"]) == second
    assert Tree.read(outcome.tree.record()) == outcome.tree
    assert outcome.facts["settings"] == model.asked[0][1] and outcome.facts["settings_later"] == [model.asked[1][1]]


def test_both_calls_of_a_chain_fit_the_context():
    conclusion = len("\nTherefore, the answer is")
    needed = len(THINK) + 20 + 32 + conclusion + 1
    given = settings(sampling={"max_tokens": 20})
    said = {THINK: "x" * 40, f"{THINK}{'x' * 20}\nTherefore, the answer is": " 9"}
    assert chain(Scripted(said, context=needed), TASK, ASKED, given).answer == "9"
    assert max(map(len, said)) + 32 <= needed
    with pytest.raises(ModelError):
        chain(Scripted(said, context=needed - 1), TASK, ASKED, given)


def test_few_shot_chain_of_thought_shows_reasoning():
    model = Scripted({FEW: " 23 - 20 is 3. 3 + 6 is 9. The answer is 9."})
    outcome = chain(model, TASK, ASKED, settings(shots=1))
    assert outcome.answer == "9" and outcome.calls == 1
    assert model.asked[0][1] == {"max_tokens": 256, "temperature": 0.0, "stop": ("\n\n", "\nQ:")}


def test_demonstrations_without_reasoning_show_none():
    task = Task("sums", examples=lambda count, seed: [ASKED], demonstrations=(BARE, SHOWN))
    assert chain(Scripted({FEW: " 9"}), task, ASKED, settings(shots=1)).answer == "9"
    with pytest.raises(ConfigError):
        chain(Scripted({}), task, ASKED, settings(shots=2))


def test_chain_of_thought_in_a_chat_begins_the_assistants_turn():
    begun = "<user>23 - 20 + 6<turn><assistant>Let's think step by step."
    model = Scripted({begun: " Three and six.", f"{begun} Three and six.\nTherefore, the answer is": " 9."}, chat=True)
    outcome = chain(model, TASK, ASKED, build(Prompting, {}))
    assert outcome.answer == "9" and outcome.facts["layout"] == "chat"
    assert [asked["stop"] for _, asked in model.asked] == [(), ()]


def ballots(*answers, logprobs=None, weights=None):
    return [
        Ballot(answer, logprobs[i] if logprobs else -1.0, weights[i] if weights else 1.0)
        for i, answer in enumerate(answers)
    ]


def test_the_vote_of_the_reference():
    counted = count(ballots("9", "9", "27", "9", None))
    assert counted.answer == "9" and counted.place == 0
    assert counted.weights == {"9": 3, "27": 1} and counted.abstained == 1


def test_a_vote_without_an_answer_is_none():
    assert count(ballots(None, None)).answer is None and count([]).answer is None
    assert count(ballots(None, None)).place is None


def test_ties_go_to_the_higher_sum_of_logprobs_then_to_the_first():
    assert count(ballots("a", "b", "b", "a", logprobs=[-1, -2, -0.5, -2])).answer == "b"  # -3 against -2.5
    assert count(ballots("a", "b", "b", "a", logprobs=[-1, -2, -1, -2])).answer == "a"
    assert count(ballots("b", "a", "a", "b", logprobs=[-1, -2, -1, -2])).answer == "b"


def test_weights_are_summed():
    assert count(ballots("a", "b", "b", weights=[0.9, 0.3, 0.4])).answer == "a"
    assert count(ballots("a", "b", "b", weights=[0.9, 0.5, 0.5])).answer == "b"


def test_equal_answers_are_one():
    counted = count(ballots("27", "9", "9.0", " 9.00", "100", "1e2"))
    assert counted.answer == "9" and counted.weights["9"] == 3 and counted.weights["100"] == 2
    assert same("Yes ") == same("yes") and same("9,000") == same("9000") != same("90")


PATHS = [
    (" The answer is 9.", -30.0),
    (" It is 27", -1.0),
    (" The answer is 9.", -28.0),
    (" no idea", -2.0),
    (" 27", -3.0),
]


def test_self_consistency_samples_and_votes():
    model = Scripted({FEW: [*PATHS, (" So 9", -4.0)]})
    outcome = self_consistency(model, TASK, ASKED, settings(shots=1, samples=6, sampling={"seed": 5}))
    assert outcome.answer == "9" and outcome.facts["votes"] == {"9": 3, "27": 2} and outcome.facts["abstained"] == 1
    assert outcome.facts["answers"] == ["9", "27", "9", None, "27", "9"]
    assert outcome.text == " The answer is 9." and outcome.calls == 6
    assert model.asked[0][1]["temperature"] == 0.7 and model.asked[0][1]["seed"] == 5
    states = [node.state for node in outcome.tree.nodes]
    assert states == ["kept", "chosen", *["finished"] * 5]
    assert outcome.tree.budget == {"generated": model.generated, "read": model.read, "calls": 6}


def test_a_tie_of_paths_is_broken_by_their_likelihood():
    model = Scripted({FEW: PATHS})
    assert self_consistency(model, TASK, ASKED, settings(shots=1, samples=5)).answer == "27"  # -4 against -58


def test_the_weighted_vote_normalises_by_length():
    """exp(mean log-prob): .9, .9 of 27 against .5, .5, .5 of 9, which the majority chooses."""
    said = [(" 9", 2 * math.log(0.5))] * 3 + [(" 27 it is", 9 * math.log(0.9)), (" 27", 3 * math.log(0.9))]
    for vote, answer in (("majority", "9"), ("weighted", "27")):
        outcome = self_consistency(Scripted({FEW: said}), TASK, ASKED, settings(shots=1, samples=5, vote=vote))
        assert outcome.answer == answer
    assert outcome.facts["votes"] == pytest.approx({"9": 1.5, "27": 1.8})


def test_self_consistency_without_demonstrations_asks_twice_a_path():
    script = {THINK: [" a", " b", " c"]}
    for thought, answer in (("a", " 9"), ("b", " 27"), ("c", " 27")):
        script[f"{THINK} {thought}\nTherefore, the answer is"] = answer
    model = Scripted(script)
    outcome = self_consistency(model, TASK, ASKED, settings(samples=3))
    assert outcome.answer == "27" and outcome.calls == 6 and len(outcome.tree.nodes) == 7
    assert [asked["temperature"] for _, asked in model.asked] == [0.7] * 3 + [0.0] * 3  # reasoning varies, its end not


def test_no_path_with_an_answer():
    outcome = self_consistency(Scripted({FEW: [" x", " y"]}), TASK, ASKED, settings(shots=1, samples=2))
    assert outcome.answer is None and outcome.text == "" and outcome.facts["parsed"] is False
    assert not any(node.state == "chosen" for node in outcome.tree.nodes)


def test_best_of_n_takes_the_verifiers_choice():
    seen = []

    def verifier(prompt, completion, record):
        seen.append((prompt, record))
        return {" It is 27": 2.0, " no idea": 2.0}.get(completion, 0.75)

    given = settings(shots=1, samples=5)
    outcome = best_of_n(Scripted({FEW: PATHS}), TASK, ASKED, given, verifier)
    assert outcome.answer == "27" and outcome.facts["rewards"] == [0.75, 2.0, 0.75, 2.0, 0.75]
    assert seen == [(FEW, ASKED)] * 5
    weighted = settings(shots=1, samples=5, vote="weighted")
    assert best_of_n(Scripted({FEW: PATHS}), TASK, ASKED, weighted, verifier).answer == "27"  # 2.75 against 1.5
    assert (
        best_of_n(Scripted({FEW: PATHS}), TASK, ASKED, given).answer == "27"
    )  # its own likelihood: -1 in 9 characters
