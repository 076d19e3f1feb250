"""The mood of financial news: Positive, Negative or Neutral, a label on the line after the news.

The news is made up, from sentences whose mood is not in doubt, so that there is as much of it as is asked for; no
sentence stands among demonstrations and examples both.
"""

import random

from amauta.base.seeds import derive
from amauta.data.extract import label_in
from amauta.prompt.task import Example, Task
from amauta.prompt.template import LINES

LABELS = ("Positive", "Negative", "Neutral")
SHOWN = (
    ("Quarterly sales rose.", "Positive"), ("Terms were not announced.", "Neutral"),
    ("Orders fell sharply.", "Negative"), ("Margins improved in every region.", "Positive"),
    ("The company cut its dividend after heavy losses.", "Negative"), ("The meeting is held in May.", "Neutral"),
    ("Cash flow turned positive.", "Positive"), ("The plant employs 120 people.", "Neutral"),
    ("The firm warned of weaker demand.", "Negative"), ("Exports reached a record.", "Positive"),
    ("Its shares are listed in Lima.", "Neutral"), ("Debt doubled within a year.", "Negative"),
    ("The bank raised its profit forecast.", "Positive"), ("The report covers three months.", "Neutral"),
    ("Operating profit collapsed.", "Negative"), ("New contracts lifted revenue.", "Positive"),
    ("The board has seven members.", "Neutral"), ("The airline lost two of its largest customers.", "Negative"),
    ("Costs fell and earnings grew.", "Positive"), ("The name of the buyer was not disclosed.", "Neutral"),
    ("The factory was closed and 300 jobs were cut.", "Negative"), ("Demand recovered strongly.", "Positive"),
    ("The agreement runs until 2030.", "Neutral"), ("The retailer missed its targets again.", "Negative"),
)  # fmt: skip
FIRST = ("Profit should improve.", "Positive")
FIGURES = (
    "net sales",
    "operating profit",
    "pretax profit",
    "order intake",
    "cash flow",
    "turnover",
    "earnings per share",
)
WHO = ("The shipping company", "The miller", "The telecom operator", "The builder", "The brewery", "The software house")
WHEN = ("in the first quarter", "in the second half", "last year", "in 2019", "during the summer")
MADE = {
    "Positive": ("{who} said its {figure} rose by {n} percent {when}.", "{who} increased its {figure} {when}.",
                 "{who} won an order worth {n} million euros {when}.", "{who} beat all forecasts {when}."),
    "Negative": ("{who} said its {figure} dropped by {n} percent {when}.", "{who} lost {n} million euros {when}.",
                 "{who} had to dismiss {n} workers {when}.", "{who} lowered its outlook for {figure} {when}."),
    "Neutral": ("{who} publishes its report on {figure} on the {n}th of the month.", "{who} has {n} offices.",
                "{who} did not comment on its {figure}.", "{who} was founded {n} years ago."),
}  # fmt: skip


def drawn(count: int, seed: int) -> list[Example]:
    """The first one is always the same; of the others each label has as many, as far as the count allows."""
    source = random.Random(derive(seed, "sentiment"))
    found = {FIRST[0]: FIRST[1]}
    while len(found) < count:
        label = LABELS[len(found) % len(LABELS)]
        text = source.choice(MADE[label]).format(
            who=source.choice(WHO), figure=source.choice(FIGURES), when=source.choice(WHEN), n=source.randint(4, 19)
        )
        found.setdefault(text, label)
    return [Example(text, label) for text, label in list(found.items())[:count]]


def grade(example: Example, answer: str | None) -> float:
    return float(answer == example.answer)


TASK = Task(
    "sentiment",
    examples=drawn,
    demonstrations=tuple(Example(text, label) for text, label in SHOWN),
    template=LINES,
    labels=LABELS,
    extract=label_in(LABELS),
    grade=grade,
    max_tokens=8,
)
