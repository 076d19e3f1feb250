"""The cat's world against values worked by hand, and what each method learns in it against what is exact."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import config
from amauta.base.errors import ConfigError
from amauta.base.messages import LANGUAGES
from amauta.losses.policy import clipped, gae, leave_one_out, reinforce
from amauta.pages import Speech
from amauta.worlds import draw, tabular
from amauta.worlds.gridworld import gridworld, layout_of
from amauta.worlds.playground import playground
from amauta.worlds.settings import METHOD_NAMES, Gridworld
from amauta.worlds.tabular import LEARNERS, believed, learn, policy_objective, taken, value_iteration
from amauta.worlds.world import Episodes, World, action_values, drawn, greedy, play, policy_values, start_value

UP, RIGHT, DOWN, LEFT = range(4)
BEST = [[81, 90, 100, 0], [72.9, 81, 0, 100], [65.61, 72.9, 81, 90], [59.049, 65.61, 72.9, 81]]


def settings(**changes: Any) -> Gridworld:
    return config.build(Gridworld, changes)


WORLD = gridworld(settings())


def test_moves_earn_what_stands_where_they_lead():
    def step(row: int, column: int, action: int) -> tuple[int, float, bool]:
        after, reward, over = WORLD.step(torch.tensor([4 * row + column]), torch.tensor([action]))
        return int(after), float(reward), bool(over)

    assert step(3, 0, UP) == (8, 0, False)
    assert step(3, 0, LEFT) == step(3, 0, DOWN) == (12, 0, False)  # off the grid
    assert step(1, 0, RIGHT) == step(2, 1, UP) == (5, -1, False)  # the broom
    assert step(1, 1, RIGHT) == step(0, 2, DOWN) == (6, -10, True)  # the bathtub
    assert step(0, 2, RIGHT) == step(1, 3, UP) == (3, 100, True)  # the meat
    assert step(0, 3, DOWN) == (3, 0, True)  # after the end nothing is earned
    assert WORLD.reset(3).tolist() == [12, 12, 12]


def test_value_iteration_finds_the_published_values():
    learnt = value_iteration(WORLD, settings())
    torch.testing.assert_close(learnt.values.view(4, 4), torch.tensor(BEST, dtype=torch.float64))
    assert float(start_value(WORLD, learnt.values)) == pytest.approx(100 * 0.9**5, abs=1e-9)
    assert learnt.curve[-1][1] == pytest.approx(59.049, abs=1e-9)


def test_the_values_of_the_uniform_policy():
    values = policy_values(WORLD, torch.full((16, 4), 0.25)).view(4, 4)
    torch.testing.assert_close(
        values[3], torch.tensor([0.5578, 0.7673, 1.886, 5.2801], dtype=torch.float64), atol=5e-5, rtol=0
    )
    assert float(values[0, 0]) == pytest.approx(4.7981, abs=5e-5)


def test_values_of_a_policy_are_what_its_episodes_earn():
    generator = torch.Generator().manual_seed(0)
    policy = torch.rand(16, 4, generator=generator, dtype=torch.float64)
    policy /= policy.sum(1, keepdim=True)
    episodes = play(WORLD, drawn(policy, generator), WORLD.reset(4000), 200)
    earned = episodes.returns(WORLD.gamma)
    error = float(earned.std()) / math.sqrt(len(earned))
    assert abs(float(earned.mean()) - float(policy_values(WORLD, policy)[12])) < 4 * error


def test_an_episode_is_what_step_tells():
    """A naive walk, one episode at a time."""
    policy = torch.full((16, 4), 0.25, dtype=torch.float64)
    seen = play(WORLD, drawn(policy, torch.Generator().manual_seed(3)), WORLD.reset(20), 12)
    assert seen.over.any() and not seen.over.all()
    for n in range(20):
        state, over = 12, False
        for t in range(seen.states.shape[1]):
            assert bool(seen.mask[n, t]) == (not over)
            if over:
                assert float(seen.rewards[n, t]) == 0
                continue
            assert int(seen.states[n, t]) == state
            after, reward, done = WORLD.step(torch.tensor([state]), seen.actions[n, t][None])
            assert float(seen.rewards[n, t]) == float(reward)
            state, over = int(after), bool(done)
        assert (int(seen.last[n]), bool(seen.over[n])) == (state, over)
        assert float(seen.returns(0.5)[n]) == pytest.approx(
            sum(0.5**t * float(r) for t, r in enumerate(seen.rewards[n]))
        )


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_finds_the_meat(method: str):
    result = playground(settings(method=method, episodes=6000))
    assert result["start_value"] == pytest.approx(59.049, rel=0.01)
    assert result["optimal_start_value"] == pytest.approx(59.049)
    assert result["curve"][-1][1] == pytest.approx(result["start_value"])
    if result["believed"] is not None:
        assert result["believed"] == pytest.approx(59.049, rel=0.01)
    assert result["episode"]["return"] == pytest.approx(59.049)
    assert result["episode"]["squares"][0] == [3, 0] and result["episode"]["squares"][-1] == [0, 3]
    assert [result["policy"][row][column] for row, column in ((0, 3), (1, 2))] == ["M", "W"]
    assert json.loads(json.dumps(result))["method"] == method


def test_q_learning_is_within_a_percent_after_20_000_episodes():
    learnt = learn(WORLD, settings(), "q-learning")
    assert float(start_value(WORLD, learnt.values)) == pytest.approx(59.049, rel=0.01)


def test_the_policy_of_value_iteration_shows_ties():
    result = playground(settings())
    assert result["policy"] == [
        ["→", "→", "→", "M"], ["↑", "↑", "W", "↑"], ["↑→", "→", "→", "↑"], ["↑→", "↑→", "↑→", "↑"],
    ]  # fmt: skip
    torch.testing.assert_close(torch.tensor(result["values"]), torch.tensor(BEST, dtype=torch.float32))


def every_episode(world: World, policy: torch.Tensor, limit: int) -> tuple[Episodes, torch.Tensor]:
    """All that can be done in ``limit`` steps, and how likely each is; what could be done after an end is shared."""
    acts = torch.cartesian_prod(*[torch.arange(world.actions)] * limit)  # (4^limit, limit)
    script = iter(acts.T)
    episodes = play(world, lambda states: next(script), world.starts.expand(len(acts)), limit)
    chances = torch.where(episodes.mask, policy[episodes.states, episodes.actions], 1 / world.actions).prod(1)
    return episodes, chances


@pytest.mark.parametrize("lam", [1.0, 0.95, 0.0])
@pytest.mark.parametrize("loss", [reinforce, clipped], ids=lambda loss: loss.__name__)
def test_the_expected_gradient_is_the_exact_one(lam: float, loss: Any):
    """A sum over all episodes. With the true values as a critic any λ is unbiased; an episode weighs by its chance,
    and the mean over actions is undone."""
    world = gridworld(settings(layout="CBM", gamma=0.5))
    logits = torch.tensor([[0.2, 1.5, -0.3, 0.1], [0.4, 2.0, 0.3, -1.0], [0.0] * 4], dtype=torch.float64)
    logits.requires_grad_()
    values = policy_values(world, logits.softmax(-1))
    (exact,) = torch.autograd.grad(start_value(world, values), logits)
    episodes, chances = every_episode(world, logits.detach().softmax(-1), 7)
    assert float(chances.sum()) == pytest.approx(1)
    advantages, targets = tabular.by_steps(world, episodes, values.detach(), lam=lam)
    torch.testing.assert_close(targets - advantages, values.detach()[episodes.states] * episodes.mask)
    old = taken(logits.detach().log_softmax(-1), episodes)
    weighed = advantages * chances[:, None] * episodes.mask.sum()
    (slope,) = torch.autograd.grad(policy_objective(world, logits, episodes, old, weighed, loss), logits)
    torch.testing.assert_close(-slope, exact, atol=2e-3 * float(exact.abs().max()), rtol=0)  # steps after the seventh


def test_groups_compare_whole_episodes():
    rewards = torch.tensor([[0.0, 10.0], [0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    zeros = torch.zeros(3, 2, dtype=torch.long)
    episodes = Episodes(zeros, zeros, rewards, mask, zeros[:, 0], torch.ones(3).bool())
    found, _ = tabular.by_groups(WORLD, episodes, torch.zeros(16), worth=leave_one_out)
    worth = torch.tensor([9 - 2.0, -6.5, 4 - 4.5], dtype=torch.float64)  # returns 9, 0, 4
    torch.testing.assert_close(found, worth[:, None] * mask)


def test_a_cut_episode_goes_on_in_what_the_critic_believes():
    world = gridworld(settings(layout="CBM", gamma=0.8))
    values = torch.tensor([2.0, 7.0, 0.0], dtype=torch.float64)
    one = torch.zeros(1, 1, dtype=torch.long)
    for over, last, wanted in ((False, 1, -1 + 0.8 * 7 - 2), (True, 2, -1 - 2)):
        episodes = Episodes(
            one, one, torch.tensor([[-1.0]]).double(), one == 0, torch.tensor([last]), torch.tensor([over])
        )
        advantages, targets = tabular.by_steps(world, episodes, values, lam=1.0)
        assert float(advantages) == pytest.approx(wanted) and float(targets) == pytest.approx(wanted + 2)


def test_a_belief_moves_towards_the_mean_of_what_was_seen():
    states = torch.tensor([[0, 1, 0], [0, 2, 2]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    targets = torch.tensor([[4.0, 1.0, 1.0], [1.0, 9.0, 9.0]]).double()
    episodes = Episodes(states, states, targets, mask, states[:, 0], mask[:, 0])
    found = believed(torch.tensor([1.0, 2.0, 3.0]).double(), episodes, targets, 0.5)
    torch.testing.assert_close(found, torch.tensor([1.5, 1.5, 3.0]).double())  # mean of 4, 1, 1 is 2


def test_the_cat_learns_by_the_functions_of_language_models(monkeypatch: pytest.MonkeyPatch):
    """With another advantage the cat learns something else: the function is not a copy."""

    def upside_down(*given: Any, **more: Any) -> torch.Tensor:
        return -gae(*given, **more)

    assert LEARNERS["ppo"].loss is clipped and LEARNERS["reinforce"].loss is reinforce
    monkeypatch.setattr(tabular, "gae", upside_down)
    assert learn(WORLD, settings(episodes=2000), "ppo").curve[-1][1] < 1


def test_a_seed_gives_the_same_again_and_another_seed_not():
    first, again, other = (
        playground(settings(method="ppo", episodes=300, seed=seed))["probabilities"] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_walls_and_other_rewards():
    world = gridworld(settings(layout="C#M/..W", meat=5, bath=-2, gamma=0.5))
    after, reward, _ = world.step(torch.tensor([0]), torch.tensor([RIGHT]))
    assert (int(after), float(reward)) == (0, 0)
    result = playground(settings(layout="C#M/..W", meat=5, bath=-2, gamma=0.5))
    assert result["optimal_start_value"] == pytest.approx(0)  # the meat is out of reach, the bathtub is avoided
    assert result["policy"][0][1:] == ["#", "M"]
    best = value_iteration(world, settings()).values
    assert torch.equal(greedy(action_values(world, best))[4, [UP, LEFT, DOWN]] > 0, torch.tensor([True] * 3))


@pytest.mark.parametrize("layout", ["", "..M", "C./M", "CC.M", "C..", "C.X.M"])
def test_a_layout_that_is_no_world_is_refused(layout: str):
    with pytest.raises(ConfigError, match="layout"):
        layout_of(settings(layout=layout))


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_drawn_in_lines_pictures_and_pages(language: str, tmp_path: Path):
    speak = Speech(language)
    result = playground(settings(method="all", episodes=100))
    text = draw.text(result, speak)
    assert text.count("┌") == len(METHOD_NAMES)
    assert draw.page(result, speak).count("<section>") == len(METHOD_NAMES)
    result = playground(settings(method="rloo", episodes=100))
    assert ("bathtub" if language == "en" else "bañera") in text
    assert ("59.049" if language == "en" else "59,049") in text
    for kind in ("svg", "html", "txt", "png"):
        draw.write(result, tmp_path / f"cat.{kind}", language)
    svg = (tmp_path / "cat.svg").read_text()
    draw.write(result, tmp_path / "again.svg", language)
    assert svg == (tmp_path / "again.svg").read_text()
    page = (tmp_path / "cat.html").read_text()
    assert f'lang="{language}"' in page and "<svg" in page
    assert "http-equiv" in page and "<script" not in page and "src=" not in page
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")


def test_one_method_alone_is_drawn_with_its_value():
    lines = draw.text(playground(settings()), Speech("en")).splitlines()
    assert lines[0] == "value-iteration" and "│ 81.00  │ 90.00  │ 100.00 │        │" in lines
    assert "earns 59.049 from the start, discounted; the best is 59.049" in lines


def test_an_unknown_ending_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="svg"):
        playground(settings(write=[str(tmp_path / "cat.docx")]))
