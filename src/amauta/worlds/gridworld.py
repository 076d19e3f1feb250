"""The cat's world: a kitchen of squares with a broom, a bathtub and a piece of meat."""

import torch

from amauta.base.errors import ConfigError
from amauta.worlds.settings import Gridworld
from amauta.worlds.world import World

MOVES = {"↑": (-1, 0), "→": (0, 1), "↓": (1, 0), "←": (0, -1)}
FREE, CAT, BROOM, BATH, MEAT, WALL = ".CBWM#"


def layout_of(settings: Gridworld) -> tuple[str, ...]:
    """The rows of squares, from the top; ConfigError where they make no world."""
    rows = tuple(row.strip() for row in settings.layout.split("/"))
    text = "".join(rows)
    unknown = sorted(set(text) - {FREE, CAT, BROOM, BATH, MEAT, WALL})
    if unknown or len({len(row) for row in rows}) != 1 or text.count(CAT) != 1 or not {BATH, MEAT} & set(text):
        raise ConfigError("gridworld.bad-layout", layout=settings.layout, unknown=" ".join(unknown) or "-")
    return rows


def gridworld(settings: Gridworld) -> World:
    """States are squares, row by row; actions are up, right, down, left.

    Entering a square earns what stands there; the bathtub and the meat end the episode. A move off the grid or into a
    wall stays where it is and earns 0.
    """
    rows = layout_of(settings)
    height, width, text = len(rows), len(rows[0]), "".join(rows)
    earned = {FREE: 0.0, CAT: 0.0, WALL: 0.0, BROOM: settings.broom, BATH: settings.bath, MEAT: settings.meat}
    following = torch.arange(height * width)[:, None].repeat(1, len(MOVES))  # (S, A)
    rewards = torch.zeros(following.shape, dtype=torch.float64)
    ends = torch.tensor([square in (BATH, MEAT) for square in text])
    closed = [square in (BATH, MEAT, WALL) for square in text]
    for state in range(height * width):
        for action, (down, right) in enumerate(MOVES.values()):
            row, column = state // width + down, state % width + right
            there = 0 <= row < height and 0 <= column < width
            if there and not closed[state] and rows[row][column] != WALL:
                following[state, action] = row * width + column
                rewards[state, action] = earned[rows[row][column]]
    return World(following, rewards, ends, torch.tensor([text.index(CAT)]), settings.gamma)
