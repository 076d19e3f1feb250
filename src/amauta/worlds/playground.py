"""A cat learns: what came of each method, beside what is exact, in plain values that can be printed and drawn."""

from typing import Any

import torch
from torch import Tensor

from amauta.base.seeds import derive
from amauta.worlds.gridworld import FREE, MOVES, gridworld, layout_of
from amauta.worlds.settings import METHOD_NAMES, Gridworld
from amauta.worlds.tabular import Learnt, learn, value_iteration
from amauta.worlds.world import World, drawn, play, policy_values, start_value

ARROWS = tuple(MOVES)


def playground(settings: Gridworld) -> dict[str, Any]:
    """Learn by the method of the settings, or by all; for each ``start_value``, ``policy``, ``values``, ``curve`` and
    an ``episode``; files are written where asked.

    ``start_value`` is what the learnt policy earns from the start, exactly; ``believed`` what the method itself
    expects there. ``policy`` has the likeliest move of every square, several where they are equally likely, and the
    letter of a square where an episode ends or nobody can stand.
    """
    world, layout = gridworld(settings), layout_of(settings)
    best = value_iteration(world, settings)
    assert best.values is not None
    facts = {
        "layout": list(layout), "gamma": settings.gamma, "seed": settings.seed,
        "rewards": {"broom": settings.broom, "bath": settings.bath, "meat": settings.meat},
        "optimal_start_value": float(start_value(world, best.values)),
    }  # fmt: skip
    names = METHOD_NAMES if settings.method == "all" else (settings.method,)
    told = [{"method": name} | _told(world, layout, learn(world, settings, name), settings) for name in names]
    result = facts | ({"methods": told} if settings.method == "all" else told[0])
    if settings.write:
        from amauta.worlds.draw import write

        result["written"] = [str(path) for path in settings.write]
        for path in settings.write:
            write(result, path)
    return result


def _told(world: World, layout: tuple[str, ...], learnt: Learnt, settings: Gridworld) -> dict[str, Any]:
    values = policy_values(world, learnt.policy)
    width = len(layout[0])

    def rows(cells: list[Any]) -> list[list[Any]]:
        return [cells[start : start + width] for start in range(0, len(cells), width)]

    return {
        "start_value": float(start_value(world, values)),
        "believed": None if learnt.values is None else float(start_value(world, learnt.values)),
        "policy": rows([_move(layout, world, learnt.policy, state) for state in range(world.states)]),
        "values": rows(values.tolist()),
        "probabilities": rows(learnt.policy.tolist()),
        "seen": learnt.curve[-1][0],
        "curve": [list(point) for point in learnt.curve],
        "episode": _episode(world, learnt.policy, width, settings),
    }


def _move(layout: tuple[str, ...], world: World, policy: Tensor, state: int) -> str:
    square = "".join(layout)[state]
    if world.ends[state] or bool((world.following[state] == state).all()):
        return square if square != FREE else "·"
    row = policy[state]
    return "".join(arrow for arrow, chance in zip(ARROWS, row, strict=True) if chance >= row.max() - 1e-9)


def _episode(world: World, policy: Tensor, width: int, settings: Gridworld) -> dict[str, Any]:
    """One episode that the learnt policy plays."""
    chance = torch.Generator().manual_seed(derive(settings.seed, "episode"))
    seen = play(world, drawn(policy, chance), world.reset(1, chance), settings.limit)
    states = [*seen.states[0].tolist(), int(seen.last[0])]
    return {
        "squares": [list(divmod(state, width)) for state in states],
        "moves": "".join(ARROWS[action] for action in seen.actions[0].tolist()),
        "rewards": seen.rewards[0].tolist(),
        "return": float(seen.returns(world.gamma)[0]),
    }
