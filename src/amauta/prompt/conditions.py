"""Demonstrations with something wrong in them (Min et al. 2022, arXiv 2202.12837, sections 4 and 5, and their code).

| condition | inputs | labels |
|---|---|---|
| none | no demonstrations | |
| gold | the task's | right |
| random | the task's | drawn from the label set, each alike and independent of the input |
| 75-correct … | the task's | so many per cent right, the others wrong |
| other-inputs | sentences of something else | random |
| random-words | the task's | random, from as many English words; the answer is sought among those |
| labels-only | none | random |
| inputs-only | the task's | none |
"""

import random
from collections.abc import Callable, Sequence

from amauta.prompt.template import Shot

Change = Callable[[Sequence[Shot], Sequence[str], random.Random], list[Shot]]
WORDS = (
    "kettle", "harbour", "violin", "meadow", "pencil", "thunder", "carpet", "orchard", "button", "glacier", "lantern",
    "saddle", "walnut", "ribbon", "canyon", "mirror", "anchor", "velvet", "turnip", "compass", "feather", "quarry",
)  # fmt: skip
OTHERS = (
    "The llama crossed the river before noon.", "She tuned the old guitar by ear.", "Moss grows on the north wall.",
    "He forgot his umbrella on the bus.", "The museum shows masks from the coast.", "Bread needs time to rise.",
    "A comet was seen above the bay.", "They painted the door green.", "The cat slept on the warm stones.",
    "Rain filled the barrels overnight.", "The choir sang without a conductor.", "Our neighbour keeps bees.",
    "The trail climbs to a small lake.", "Two boys flew a kite on the beach.", "The clock in the tower is slow.",
    "Wild horses came down to drink.", "The soup was too hot to taste.", "An owl called three times.",
    "The bridge swings in the wind.", "She folded a crane out of paper.", "The school garden grows potatoes.",
    "Fog hid the lighthouse all morning.", "He learnt to weave from his mother.", "The stars were very bright.",
)  # fmt: skip


def gold(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    return list(shots)


def none(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    return []


def random_labels(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    return [Shot(shot.question, source.choice(labels)) for shot in shots]


def partly_correct(percent: int) -> Change:
    """``len(shots) * percent // 100`` of the labels stay right, which ones by chance; every other one is wrong."""

    def change(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
        right = set(source.sample(range(len(shots)), len(shots) * percent // 100))
        wrong = [[label for label in labels if label != shot.answer] for shot in shots]
        return [shot if i in right else Shot(shot.question, source.choice(wrong[i])) for i, shot in enumerate(shots)]

    return change


def other_inputs(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    texts = source.sample(OTHERS, len(shots)) if len(shots) <= len(OTHERS) else source.choices(OTHERS, k=len(shots))
    return [Shot(text, source.choice(labels)) for text in texts]


def labels_only(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    return [Shot("", source.choice(labels)) for _ in shots]


def inputs_only(shots: Sequence[Shot], labels: Sequence[str], source: random.Random) -> list[Shot]:
    return [Shot(shot.question, "") for shot in shots]


def other_words(labels: Sequence[str], source: random.Random) -> list[str]:
    """As many English words as there are labels."""
    return source.sample(WORDS, len(labels))


CHANGES: dict[str, Change] = {
    "none": none,
    "gold": gold,
    "random": random_labels,
    "other-inputs": other_inputs,
    "random-words": random_labels,  # over ``other_words``
    "labels-only": labels_only,
    "inputs-only": inputs_only,
}
