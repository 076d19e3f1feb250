"""Graph of thoughts: volumes and latencies counted by hand, merged keys, and sorting against one breath."""

import math
from statistics import mean

import pytest

from amauta.prompt.methods import METHODS
from amauta.prompt.outcome import Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.tasks import sorting
from amauta.prompt.thoughts.graph import Graph
from amauta.prompt.thoughts.plan import Operation, divide_and_merge, merge_best
from amauta.prompt.thoughts.settings import Thoughts
from amauta.prompt.thoughts.thinking import Thinking
from tests.prompt.scripted import Scripted
from tests.prompt.thoughts.players import noisy_sorter, spendings

LIST = "[4, 3, 2, 1, 8, 7, 6, 5]"


def sorted_by(player, question: str = LIST, **settings) -> tuple[Scripted, Outcome]:
    model = Scripted(player)
    example = Example(question, sorting.spelt(sorted(sorting.numbers_in(question) or [])))
    return model, METHODS["got"](model, sorting.TASK, example, Prompting(thoughts=Thoughts(**settings)))


def test_volume_and_latency_by_hand():
    """Four parts, one answer each, merged pairwise twice, one improvement that loses against what it began with.

    The root, 4 parts, 4 sorted parts and 2 merged pairs lead to the last merged list: 11 ancestors; the longest way to
    it is part, sorted, pair, whole: 4.
    """
    model, outcome = sorted_by(noisy_sorter(0.0, 1), branching=1)
    assert outcome.answer == "[1, 2, 3, 4, 5, 6, 7, 8]"
    assert (outcome.facts["volume"], outcome.facts["latency"], outcome.facts["score"]) == (11, 4, 0)
    assert outcome.calls == 4 + 2 + 1 + 1 and outcome.facts["thoughts"] == 8
    tree = outcome.tree
    assert tree.budget == {"generated": model.generated, "read": model.read, "calls": 8}
    assert [node.text for node in tree.nodes[1:5]] == ["[4, 3]", "[2, 1]", "[8, 7]", "[6, 5]"]
    assert tree.nodes[9].parents == (5, 6) and tree.nodes[9].text == "[1, 2, 3, 4]"
    assert tree.nodes[11].parents == (9, 10) and tree.nodes[11].state == "chosen"
    assert tree.nodes[12].parents == (11,) and tree.nodes[12].state == "dropped"  # no better: the earlier stays
    assert [node.state for node in tree.nodes].count("chosen") == 11


def test_a_chain_has_as_many_of_both_as_thoughts():
    """Generate, then improve three times: volume and latency of the last are 4 (Besta et al., table 2: a chain)."""
    plan = (Operation("generate"), *[Operation("improve")] * 3)
    graph = graph_of(lambda prompt, times: "[1]" if "errors" not in prompt else "[1, 2]")
    last = graph.run(plan)[-1][-1]
    assert len(graph.tree.ancestors(last)) == graph.tree.depths()[last] == 4


def graph_of(player, question: str = LIST, task=sorting.TASK) -> Graph:
    thinking = Thinking("got", Scripted(player), task, Example(question, ""), Prompting(), Thoughts())
    assert task.parted is not None
    return Graph(thinking, task.parted)


def test_an_odd_part_waits_for_its_partner():
    graph = graph_of(noisy_sorter(0.0, 1), "[3, 2, 1]")
    given = graph.run((Operation("split", 3), Operation("generate"), Operation("aggregate", together=2)))
    assert [(graph.keys[node], graph.tree.nodes[node].text) for node in given[-1]] == [
        ((0, 1), "[2, 3]"),
        ((2,), "[1]"),
    ]
    assert graph.thinking.requests.outcome(None, "").calls == 3 + 1  # nothing is asked for the odd one
    graph = graph_of(noisy_sorter(0.0, 1), "[3, 2, 1]")
    again = graph.run((Operation("split", 3), Operation("generate"), *[Operation("aggregate", together=2)] * 2))
    assert [graph.keys[node] for node in again[-1]] == [(0, 1, 2)]


def test_equal_parts_do_not_compete():
    """Both parts are [2, 1]: their answers are answers to different parts all the same."""
    graph = graph_of(noisy_sorter(0.0, 1), "[2, 1, 2, 1]")
    given = graph.run(
        (Operation("split", 2), Operation("generate", 3), Operation("score"), Operation("keep-best", 1),
         Operation("aggregate", together=2))
    )  # fmt: skip
    assert [len(nodes) for nodes in given] == [2, 6, 6, 2, 1]
    assert graph.tree.nodes[given[-1][0]].text == "[1, 1, 2, 2]"


def test_the_best_are_kept_and_the_invalid_dropped():
    said = ["[1, 2]", "[1, 2, 3, 4, 5, 6, 7, 8]", "[8, 7]", "no list", "[1, 2, 3, 4, 5, 6, 7, 8]"]
    graph = graph_of(lambda prompt, times: said[times])
    plan = (Operation("generate", 5), Operation("score"), Operation("keep-best", 3), Operation("validate"),
            Operation("keep-best", 2, after=(1, 3)))  # fmt: skip
    given = graph.run(plan)
    assert given == [[1, 2, 3, 5], [1, 2, 3, 5], [2, 5, 1], [2, 5], [2, 5]]
    facts = [graph.tree.nodes[node].facts for node in range(1, 6)]
    assert [one.get("score") for one in facts] == [-6, 0, -7, None, 0]
    assert facts[3]["unread"] and graph.thinking.unread == 1 and facts[0]["invalid"]
    assert [node.state for node in graph.tree.nodes[1:]] == ["dropped", "open", "dropped", "dropped", "open"]


def test_without_a_last_choice_the_best_of_the_last_is_given():
    said = ["[1]", "[1, 2, 3, 4, 5, 6, 7, 8]", "[2]"]
    graph = graph_of(lambda prompt, times: said[times])
    given = graph.run((Operation("generate", 3), Operation("score")))
    assert graph.best(given) == 2 and graph.best([*given, []]) == 2 and graph.best([[]]) is None
    given = graph_of(lambda prompt, times: said[times]).run((Operation("generate", 2),))
    assert graph.best(given) is not None  # not scored yet: any


def test_a_part_is_no_answer():
    _, outcome = sorted_by(lambda prompt, times: "no list", branching=1, parts=1)
    assert outcome.answer is None


def test_a_plan_must_be_a_dag():
    for after in ((1,), (2,), (-1,)):
        with pytest.raises(ValueError, match="operation 1"):
            graph_of(noisy_sorter(0.0, 1)).run((Operation("generate"), Operation("score", after=after)))


def test_plans_by_hand():
    kinds = [operation.kind for operation in divide_and_merge(Thoughts(parts=4))]
    best = ["score", "keep-best"]
    assert kinds == ["split", "generate", *best, "aggregate", *best, "aggregate", *best, "improve", *best, "keep-best"]
    assert [each.kind for each in divide_and_merge(Thoughts(parts=5))].count("aggregate") == 3
    assert [each.kind for each in divide_and_merge(Thoughts(parts=1, improvements=0))] == [
        "split", "generate", *best, "keep-best",
    ]  # fmt: skip
    assert [each.kind for each in merge_best(Thoughts(improvements=2))].count("improve") == 2


def test_a_graph_sorts_better_than_one_breath():
    """A sorter that loses each number with probability .04: 32 numbers come out right with .96^32 = .27.

    Its own mistakes are seen by the score, so 4 parts of 8 (.72 each, best of 5), merged and merged (.52, .27, best of
    5) and improved twice are right far oftener; by the same sorter, over the same 40 lists.
    """
    rate, lists = 0.04, sorting.examples(40, seed=0)
    exact = (1 - rate) ** sorting.LENGTH
    single = noisy_sorter(rate, 7)
    alone = [sorting.grade(each, single(f"{sorting.SORTING}\n\n{each.question}", 0)) for each in lists]
    assert mean(alone) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40))
    player = noisy_sorter(rate, 8)
    settings = Prompting(thoughts=Thoughts(branching=5, improvements=2))
    found = [METHODS["got"](Scripted(player), sorting.TASK, each, settings) for each in lists]
    graphs = mean(sorting.grade(each, one.answer) for each, one in zip(lists, found, strict=True))
    assert mean(alone) < 0.6 < 0.8 < graphs
    assert all(one.facts["latency"] in (4, 5, 6) for one in found)


@pytest.mark.parametrize("limit", [{"most_calls": 30}, {"most_tokens": 2000}, {"most_thoughts": 30}])
def test_limits_end_it_with_the_best_whole_list(limit: dict[str, int]):
    """30 calls: 20 for the parts, 10 for the pairs, none for the whole list, so there is no answer; without parts the
    first answers are whole ones."""
    _, outcome = sorted_by(noisy_sorter(0.1, 3), branching=5, **limit)
    spent = spendings(outcome)
    assert outcome.facts["spent"] and all(spent[name] <= most for name, most in limit.items())
    if "most_tokens" not in limit:
        assert outcome.answer is None and spent[next(iter(limit))] == 30
    _, outcome = sorted_by(noisy_sorter(0.0, 3), branching=5, parts=1, most_calls=4)
    assert outcome.answer == "[1, 2, 3, 4, 5, 6, 7, 8]" and outcome.facts["spent"] and outcome.calls == 4


def test_any_task_is_answered_several_times_and_merged():
    task = Task("sums", lambda count, seed: [], instruction="Add.")

    def say(prompt: str, times: int) -> str:
        asked = prompt.rpartition("A:")[0]
        if "sure, likely or impossible" in prompt:
            return "sure" if "is 4" in asked else "likely" if "is 3" in asked else "impossible"
        if "joins what is right" in prompt:
            assert "Attempt 1:\nThe answer is 3\n\nAttempt 2:\nThe answer is 5" in prompt
            return "The answer is 4"
        return "The answer is 9" if "may be wrong" in prompt else ["The answer is 5", "The answer is 3", " "][times]

    settings = Prompting(thoughts=Thoughts(branching=3, judgements=1))
    outcome = METHODS["got"](Scripted(say), task, Example("2+2", "4"), settings)
    assert outcome.answer == "4" and outcome.facts["score"] == 20 and outcome.facts["unread"] == 1
    assert (outcome.facts["volume"], outcome.facts["latency"]) == (3, 2)  # the question and two attempts


def test_a_merged_answer_that_is_worse_does_not_stay():
    def say(prompt: str, times: int) -> str:
        if "sure, likely or impossible" in prompt:
            return "impossible" if "is 9" in prompt else "likely"
        return "The answer is 9" if "Attempt" in prompt else "The answer is 4"

    task = Task("sums", lambda count, seed: [], instruction="Add.")
    settings = Prompting(thoughts=Thoughts(branching=2, judgements=1))
    outcome = METHODS["got"](Scripted(say), task, Example("2+2", "4"), settings)
    assert outcome.answer == "4" and outcome.facts["latency"] == 1


def test_nothing_readable_is_no_answer():
    _, outcome = sorted_by(lambda prompt, times: "no list", branching=2)
    assert (
        outcome.answer is None and outcome.facts["unread"] == 8 and outcome.calls == 8 and not outcome.facts["parsed"]
    )
