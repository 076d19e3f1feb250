"""Tree of thoughts: the two searches on spaces without a model, then on the game of 24 with scripted players."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.prompt.methods import METHODS
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.tasks import game24
from amauta.prompt.thoughts.settings import Thoughts
from amauta.prompt.thoughts.steps import value_of, vote_of
from amauta.prompt.thoughts.tree import breadth_first, depth_first
from tests.prompt.scripted import Scripted
from tests.prompt.thoughts.players import legal, perfect
from tests.prompt.thoughts.simulator import Space


def never(node: int) -> bool:
    return False


def broad(space: Space, *, breadth: int, depth: int, finished=never) -> list[tuple[int, ...]]:
    found = breadth_first(
        space.tree, space.expand, space.evaluate, finished, breadth=breadth, depth=depth, spent=space.spent
    )
    return [space.paths[node] for node in found]


def deep(space: Space, *, depth: int, threshold: float = 0.0, visits: int = 100, solutions: int = 1, finished=never):
    found = depth_first(
        space.tree, space.expand, space.evaluate, finished, depth=depth, threshold=threshold, visits=visits,
        solutions=solutions, spent=space.spent,
    )  # fmt: skip
    return [space.paths[node] for node in found]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5))
def test_a_full_tree_makes_k_and_t_minus_1_times_b_k(branching: int, depth: int, breadth: int):
    breadth = min(breadth, branching)
    space = Space(branching, lambda path: sum(path))
    found = broad(space, breadth=breadth, depth=depth)
    assert space.made == space.judged == branching + (depth - 1) * breadth * branching
    assert len(found) == breadth and all(len(path) == depth for path in found)


@given(st.integers(0, 10_000))
def test_with_room_for_all_it_finds_the_best_of_all(seed: int):
    worths = {path: (hash((seed, path)) % 997) / 997 for n in (1, 2, 3) for path in product(range(3), repeat=n)}
    space = Space(3, worths.__getitem__)
    assert broad(space, breadth=9, depth=3)[0] == max(product(range(3), repeat=3), key=worths.__getitem__)


def test_a_narrow_beam_misses_what_looks_bad_at_first():
    worths = {(0,): 1.0, (1,): 2.0, (0, 0): 9.0, (0, 1): 0.0, (1, 0): 3.0, (1, 1): 4.0}
    assert broad(Space(2, worths.__getitem__), breadth=1, depth=2) == [(1, 1)]
    assert broad(Space(2, worths.__getitem__), breadth=2, depth=2) == [(0, 0), (1, 1)]


def test_breadth_first_states_and_ties():
    space = Space(3, lambda path: float(path[-1] == 2))
    assert broad(space, breadth=2, depth=2) == [(2, 2), (0, 2)]  # of equal ones the earlier: 0 was kept, 1 dropped
    assert [space.state((choice,)) for choice in range(3)] == ["kept", "dropped", "kept"]
    assert space.expanded == [(), (2,), (0,)]  # the best first


def test_whole_solutions_are_kept_aside_and_not_expanded():
    space = Space(2, lambda path: {(0,): 0.1, (1,): 0.9}.get(path, 0.5))
    found = broad(space, breadth=1, depth=2, finished=lambda node: space.paths[node] == (0,))
    assert found[0] == (0,)  # a whole solution is before what is none, whatever it is worth
    assert (0,) not in space.expanded and space.state((0,)) == "finished"
    assert (1,) in space.expanded  # it took the one place of the beam


def test_breadth_first_ends_with_the_best_when_the_limits_are_met():
    space = Space(2, lambda path: sum(path), most=5)  # 2, then 3 of 4
    assert broad(space, breadth=2, depth=3)[0] == (1, 1) and space.made == 5
    space = Space(2, lambda path: sum(path), most=2)
    assert broad(space, breadth=2, depth=3) == [(1,), (0,)]
    assert space.expanded == [()]  # nothing more is asked for
    space = Space(2, lambda path: sum(path), most=0)
    assert broad(space, breadth=2, depth=3) == []


def test_judgements_that_are_missing_leave_the_level_before():
    space = Space(2, lambda path: sum(path))
    space.evaluate = lambda states: {each: 1.0 for each in states if len(space.paths[each]) < 2}
    assert broad(space, breadth=2, depth=2) == [(0,), (1,)]


def test_depth_first_visits_the_best_first_and_comes_back():
    """Worked by hand: 1 is better than 0; below it 10 and 11 are dead ends, so 0 is next, and its child 01 ends it."""
    worths = {(0,): 1.0, (1,): 2.0, (1, 0): 3.0, (1, 1): 5.0, (0, 0): 1.0, (0, 1): 2.0}
    space = Space(2, lambda path: worths.get(path, 0.0))
    found = deep(space, depth=3, finished=lambda node: space.paths[node] == (0, 1))
    visited = sorted((node for node in space.paths if "step" in space.tree.nodes[node].facts),
                     key=lambda node: space.tree.nodes[node].facts["step"])  # fmt: skip
    assert [space.paths[node] for node in visited] == [(), (1,), (1, 1), (1, 0), (0,), (0, 1)]
    assert found[0] == (0, 1) and space.state((0, 1)) == "finished"
    assert space.state((1, 1, 0)) == "dropped" and space.state((0, 0)) == "open"  # pruned; never reached


def test_depth_first_prunes_at_the_threshold():
    worths = {(0,): 0.5, (1,): 0.6}
    space = Space(2, lambda path: worths.get(path, 1.0))
    deep(space, depth=2, threshold=0.5)
    assert (0,) not in space.expanded and space.state((0,)) == "dropped" and (1,) in space.expanded


def test_depth_first_steps_solutions_and_depth():
    def ends(node: int) -> bool:
        return len(space.paths[node]) == 2

    space = Space(2, lambda path: 1.0 + path[-1])
    found = deep(space, depth=2, solutions=3, finished=ends)
    assert found[:3] == [(1, 1), (0, 1), (1, 0)] and (0, 0) in found[3:]  # three whole ones, two of them worth 2
    space = Space(2, lambda path: 1.0)
    deep(space, depth=9, visits=4)
    assert space.expanded == [(), (0,), (0, 0), (0, 0, 0)]
    space = Space(2, lambda path: 1.0)
    assert deep(space, depth=1) == [(0,), (1,)] and space.expanded == [()]
    space = Space(2, lambda path: 1.0, most=3)
    assert deep(space, depth=9)[0] == (0, 0) and space.expanded == [(), (0,)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("10 + 14 = 24\nsure", 20.0), ("Likely.", 1.0), ("sure? no: impossible", 0.001), ("surely", None), ("", None)],
)
def test_judgements(text: str, value: float | None):
    assert value_of(text) == value


def test_votes():
    assert vote_of("The best is 2", 3) == 1 and vote_of("1 or 3", 3) == 2
    assert vote_of("4", 3) is None and vote_of("0", 3) is None and vote_of("none", 3) is None


# Game of 24

PUZZLE = Example("2 3 5 12", "")  # 12 / (3 - 5 / 2): only fractions solve it


def played(player=perfect, puzzle: Example = PUZZLE, prompting: Prompting | None = None, **settings):
    model = Scripted(player)
    outcome = METHODS["tot"](model, game24.TASK, puzzle, prompting or Prompting(thoughts=Thoughts(**settings)))
    return model, outcome


@pytest.mark.parametrize("search", ["bfs", "dfs"])
@pytest.mark.parametrize("generate", ["sample", "propose"])
def test_a_perfect_player_solves_the_puzzle(generate: str, search: str):
    model, outcome = played(generate=generate, search=search, branching=48, breadth=1, judgements=1)
    assert game24.grade(PUZZLE, outcome.answer) == 1
    assert (outcome.generated_tokens, outcome.read_tokens, outcome.calls) == (model.generated, model.read, model.calls)
    tree = outcome.tree
    assert tree is not None and tree.budget == {"generated": model.generated, "read": model.read, "calls": model.calls}
    assert [node.state for node in tree.nodes].count("chosen") == 3  # the way to the answer
    assert outcome.text.splitlines()[-1].endswith("= 24 (left: 24)")
    assert outcome.facts["value"] == 20 and not outcome.facts["spent"]
    judged = [prompt for prompt in model.prompts if prompt.startswith(game24.VALUING)]
    assert len(judged) == len(set(judged))  # the numbers left are the same after many paths: they are judged once


def voter(place: int):
    """A perfect player that always votes for the same place, from 1."""
    return lambda prompt, times: f"Best: {place}" if prompt.startswith(game24.VOTING) else perfect(prompt, times)


def test_generations_are_k_and_t_minus_1_times_b_k():
    """With sampling every generation is a request of its own; a level takes one vote."""
    model, outcome = played(
        voter(1), Example("1 2 5 9", ""), branching=3, breadth=2, depth=3, evaluate="vote", judgements=1
    )
    generations = [prompt for prompt in model.prompts if prompt.startswith(game24.STEPPING)]
    assert len(generations) == 3 + (3 - 1) * 2 * 3
    assert len(model.prompts) - len(generations) == 3
    assert outcome.facts["thoughts"] == 15


def test_votes_choose_the_state():
    """All votes are for the second, so of every level the second is the best."""
    _, outcome = played(voter(2), branching=2, breadth=1, depth=2, evaluate="vote", judgements=2)
    first = game24.spelt(game24.moves([Fraction(number) for number in (2, 3, 5, 12)])[1])
    assert outcome.text.splitlines()[0] == first and outcome.facts["value"] == 1.0


def test_values_are_means_and_equal_states_are_judged_once():
    said = ["sure", "impossible", "I do not know"]
    model, outcome = played(
        player=lambda prompt, times: said[times] if prompt.startswith(game24.VALUING) else "2 + 3 = 5 (left: 5 5 12)",
        branching=2, depth=1,
    )  # fmt: skip
    tree = outcome.tree
    assert tree is not None and tree.nodes[1].facts["value"] == pytest.approx((20 + 0.001 + 0) / 3)
    assert tree.nodes[2].state == "dropped" and tree.nodes[2].facts.get("repeated") is True
    assert outcome.facts["unclear"] == 1 and outcome.answer == "2 + 3"
    assert tree.nodes[1].logprobs == [-1.0] * len("2 + 3 = 5 (left: 5 5 12)")
    # two puzzles' states with the same numbers left: one judgement
    model, _ = played(player=_same_left, branching=2, judgements=1, depth=1)
    assert sum(prompt.startswith(game24.VALUING) for prompt in model.prompts) == 1


def _same_left(prompt: str, times: int) -> str:
    if prompt.startswith(game24.VALUING):
        return "sure"
    return ["2 + 3 = 5 (left: 5 5 12)", "3 + 2 = 5 (left: 5 5 12)"][times]


def test_texts_without_a_step_are_dropped_and_counted():
    _, outcome = played(player=lambda prompt, times: "hm", branching=3)
    assert outcome.answer is None and outcome.facts["unread"] == 3 and outcome.facts["thoughts"] == 3
    assert outcome.tree is not None and all(node.state == "dropped" for node in outcome.tree.nodes[1:])
    _, outcome = played(player=lambda prompt, times: "hm", generate="propose")
    assert outcome.answer is None and outcome.facts["unread"] == 1 and outcome.facts["thoughts"] == 0


def test_so_many_proposals_are_taken():
    model, outcome = played(generate="propose", branching=3, depth=1, judgements=1)
    assert outcome.facts["thoughts"] == 3 and outcome.tree is not None
    operation, *thoughts = outcome.tree.nodes[1:]
    assert (operation.kind, operation.text) == ("operation", "\n".join(legal(model.prompts[0]))[: 3 * 64])
    assert [node.text.strip() for node in thoughts] == legal(model.prompts[0])[:3]
    assert all(node.facts["proposed_in"] == 1 and node.ids == [] for node in thoughts)


def test_every_request_has_its_own_seed():
    """A batch is sent with the seed of its first prompt, and each of its prompts counts it up by one."""
    model, _ = played(branching=2, breadth=2, judgements=2, depth=2)
    seeds = [settings["seed"] for _, settings in model.asked]
    batches = sorted(set(seeds))
    assert len(batches) == 4 and batches == [seeds.index(seed) for seed in batches]
    again = Prompting(thoughts=Thoughts(branching=2), sampling=replace(Prompting().sampling, seed=7, temperature=0.1))
    model, _ = played(prompting=again)
    assert model.asked[0][1]["seed"] == 7 and {settings["temperature"] for _, settings in model.asked} == {0.1}


def test_demonstrations_are_dropped_to_fit_the_context():
    model = Scripted(perfect, context=700)
    settings = Prompting(thoughts=Thoughts(branching=2, breadth=1, judgements=1))
    outcome = METHODS["tot"](model, game24.TASK, PUZZLE, settings)
    assert max(map(len, model.prompts)) + 64 <= 700
    shown = len(game24.DEMONSTRATIONS) + 1
    steps = [prompt.count("Numbers: ") for prompt in model.prompts if prompt.startswith(game24.STEPPING)]
    values = [prompt.count("Numbers: ") for prompt in model.prompts if prompt.startswith(game24.VALUING)]
    missing = 2 * sum(shown - n for n in steps[::2]) / 2 + sum(len(game24.JUDGED) + 1 - n for n in values)
    assert outcome.facts["dropped"] == missing > 0


def test_one_state_needs_no_vote():
    model, outcome = played(branching=1, breadth=1, evaluate="vote")
    assert not any(prompt.startswith(game24.VOTING) for prompt in model.prompts)
    assert outcome.facts["value"] == 1.0 and outcome.calls == 3


def test_equal_proposals_are_one():
    _, outcome = played(lambda prompt, times: "2 + 3 = 5 (left: 5 5 12)\n" * 2 + "3 - 2 = 1 (left: 1 5 12)\nsure",
                        generate="propose", branching=2, depth=1)  # fmt: skip
    assert [node.text[:5] for node in outcome.tree.nodes if node.kind == "thought"] == ["2 + 3", "3 - 2"]


@pytest.mark.parametrize(
    ("limit", "spent"), [({"most_calls": 7}, "calls"), ({"most_tokens": 300}, "generated"), ({"most_thoughts": 4}, "")]
)
@pytest.mark.parametrize("generate", ["sample", "propose"])
def test_limits_are_never_exceeded_and_the_best_found_is_given(limit: dict[str, int], spent: str, generate: str):
    _, outcome = played(branching=4, judgements=1, generate=generate, thought_tokens=40, judgement_tokens=20, **limit)
    assert outcome.facts["spent"] and outcome.tree is not None
    if spent:
        assert outcome.tree.budget[spent] <= next(iter(limit.values()))
    else:
        assert outcome.facts["thoughts"] == 4
    assert outcome.text or generate == "propose"  # some step stands there


def test_any_task_is_reasoned_in_lines():
    task = Task("sums", lambda count, seed: [], instruction="Add.")
    script = {"": ["First 2 + 2 = 4.", "I guess."], "First 2 + 2 = 4.": ["The answer is 4."] * 2}

    def say(prompt: str, times: int) -> str:
        if "sure, likely or impossible" in prompt:
            return "sure" if "2 + 2 = 4" in prompt else "impossible"
        return script[prompt.rpartition("A:")[2].strip()][times]

    outcome = METHODS["tot"](
        Scripted(say), task, Example("2+2?", "4"), Prompting(thoughts=Thoughts(branching=2, breadth=1, judgements=1))
    )
    assert outcome.answer == "4" and outcome.text == "First 2 + 2 = 4.\nThe answer is 4.\n"
    assert outcome.tree is not None and outcome.tree.nodes[4].facts.get("repeated") is True


def test_a_blank_line_between_steps_is_passed_over():
    class Blank(Scripted):
        """Its stop text is a token of its own, as that of a real model may be."""

        def generate(self, prompts, **settings):
            return [
                one
                if one.text
                else replace(one, finish="stop-string", tokens=[10], logprobs=[-2.0], sampled_logprobs=[-2.0])
                for one in super().generate(prompts, **settings)
            ]

    def say(prompt: str, times: int) -> str:
        if prompt.startswith(game24.VALUING):
            return "sure"
        return legal(prompt)[0] if prompt.endswith("\n\n") else ("\n", -0.5)

    model = Blank(say)
    outcome = METHODS["tot"](
        model, game24.TASK, PUZZLE, Prompting(thoughts=Thoughts(branching=1, breadth=1, judgements=1))
    )
    assert outcome.facts["thoughts"] == 3 and outcome.facts["unread"] == 0 and outcome.answer is not None
    steps = [prompt for prompt in model.prompts if prompt.startswith(game24.STEPPING)]
    assert [prompt.endswith("\n\n") for prompt in steps] == [False, True] * 3
    first = outcome.tree.nodes[1]
    assert first.ids == [10, *map(ord, first.text.strip())] and first.logprobs[0] == -2.0 and first.logprobs[1] == -1.0


@pytest.mark.parametrize(
    ("chat", "ends"),
    [(False, {("\n",), ("\n\n", "\nNumbers:"), ("\nNumbers:",)}), (True, {("\n",), ()})],
)
def test_what_ends_a_text(chat: bool, ends: set[tuple[str, ...]]):
    """Lines, judgements, whole solutions: in a chat the model ends its turn, in plain text the next question would."""
    model = Scripted(lambda prompt, times: "sure", chat=chat)
    settings = Prompting(thoughts=Thoughts(branching=1, simulations=1, generate="propose"))
    for method in ("tot", "mcts"):
        METHODS[method](model, game24.TASK, PUZZLE, settings)
    METHODS["tot"](Scripted(perfect), game24.TASK, PUZZLE, settings)
    assert {asked["stop"] for _, asked in model.asked} == ends
