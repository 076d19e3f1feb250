"""The facts of the small world, drawn from a seed: who lives where, does what, and what things cost."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.base.seeds import derive
from amauta.data.smallworld.lexicon import Lexicon

VILLAGE_ATTRIBUTES = ("altitude", "product", "feast", "weather")
PARENTS, CHILDREN = range(55, 80, 5), range(20, 40, 5)  # ages, in fives: the size of a craft's choice
PRICES = range(2, 10)  # soles, one digit, so that market sums stay within the times table


@dataclass
class SmallWorld:
    """Settings of ``amauta data smallworld``."""

    out: Annotated[Path, Doc("folder to write")]
    seed: Annotated[int, Ge(0), Doc("the world and all its texts are a function of this number")] = 7
    people: Annotated[int, Ge(4), Le(60), Doc("people in the training documents")] = 40
    villages: Annotated[int, Ge(2), Le(8), Doc("villages in the training documents")] = 8
    documents: Annotated[int, Gt(0), Doc("training documents")] = 30_000
    heldout_documents: Annotated[int, Gt(0), Doc("held-out documents of the same world")] = 400
    dialogues: Annotated[int, Gt(0), Doc("training dialogues about facts")] = 6_000
    heldout_dialogues: Annotated[int, Gt(0), Doc("held-out questions about facts that training never asks")] = 200
    arithmetic: Annotated[int, Gt(0), Doc("training dialogues with worked sums")] = 1_500
    heldout_arithmetic: Annotated[int, Gt(0), Doc("held-out sums")] = 100
    practice: Annotated[int, Gt(0), Doc("other questions about held-out sums, to be answered for a reward")] = 1_000
    preferences: Annotated[int, Gt(0), Doc("training preference pairs")] = 2_000
    heldout_preferences: Annotated[int, Gt(0), Doc("held-out preference pairs")] = 200
    labels: Annotated[int, Gt(0), Doc("training rows of each labelled set")] = 1_500
    heldout_labels: Annotated[int, Gt(0), Doc("held-out rows of each labelled set")] = 300
    translations: Annotated[int, Gt(0), Doc("training translations")] = 2_000
    heldout_translations: Annotated[int, Gt(0), Doc("held-out translations")] = 200
    retrieval_people: Annotated[int, Ge(1), Le(8), Doc("people who stand only in the retrieval documents")] = 6
    polite: Annotated[float, Ge(0), Le(1), Doc("share of polite answers in the training dialogues")] = 0.4
    rude: Annotated[float, Ge(0), Le(1), Doc("share of rude answers in the training dialogues")] = 0.3


@dataclass(frozen=True)
class Fact:
    """One functional fact: this attribute of this subject has this one value.

    ``id`` names it. A marriage is one fact with two subjects: both rows carry the same ``id``, so that a split that
    holds it out holds it out from both sides.
    """

    id: str
    subject: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Person:
    """A name, a gender and the values of the attributes (keys of the lexicon's tables, names, or a number)."""

    name: str
    female: bool
    values: dict[str, str]


@dataclass(frozen=True)
class World:
    """Everything that is true. The reserved people and villages stand only in the retrieval documents."""

    people: dict[str, Person]
    villages: dict[str, dict[str, str]]
    prices: dict[str, int]
    couples: tuple[tuple[str, str, tuple[str, ...]], ...]  # wife, husband, children
    reserved_people: tuple[str, ...]
    reserved_villages: tuple[str, ...]
    facts: tuple[Fact, ...] = field(repr=False)

    @property
    def common_people(self) -> list[str]:
        """The names that the training documents speak of."""
        return [name for name in self.people if name not in self.reserved_people]

    @property
    def common_villages(self) -> list[str]:
        """The villages that the training documents speak of."""
        return [name for name in self.villages if name not in self.reserved_villages]

    def residents(self, village: str) -> list[str]:
        """The common people who live in a village."""
        return [name for name in self.common_people if self.people[name].values["village"] == village]

    def is_reserved(self, fact: Fact) -> bool:
        """Whether a fact stands only in the retrieval documents."""
        return fact.subject in self.reserved_people or fact.subject in self.reserved_villages


def draw_world(settings: SmallWorld, lexicon: Lexicon) -> World:
    """The world of a seed: a fixed function of ``seed``, ``people``, ``villages`` and ``retrieval_people``."""
    random = Random(derive(settings.seed, "smallworld", "facts"))
    villages, reserved_villages = _villages(settings, lexicon, random)
    common = [name for name in villages if name not in reserved_villages]
    people, couples = _community(settings, lexicon, common, random)
    reserved = [name for name in _names(lexicon, random) if name not in people][: settings.retrieval_people]
    for name in reserved:
        age = random.choice([*CHILDREN, *PARENTS])
        people[name] = _person(name, name in lexicon.female, age, lexicon, common, random)
    prices = {good: random.choice(PRICES) for good in lexicon.table("goods")}
    facts = [*_person_facts(people), *_village_facts(villages)]
    facts += [Fact(f"price:{good}", good, "price", str(price)) for good, price in prices.items()]
    return World(people, villages, prices, couples, tuple(reserved), reserved_villages, tuple(facts))


def _villages(
    settings: SmallWorld, lexicon: Lexicon, random: Random
) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    names = random.sample(lexicon.villages, settings.villages + 2)
    altitudes = random.sample(range(3100, 4300, 100), len(names))
    products = _spread(list(lexicon.table("products")), len(names), random)
    villages = {}
    for name, altitude, product in zip(names, altitudes, products, strict=True):
        feast = random.choice(list(lexicon.table("months")))
        weather = random.choice(list(lexicon.table("weathers")))
        villages[name] = {"altitude": str(altitude), "product": product, "feast": feast, "weather": weather}
    return villages, tuple(names[settings.villages :])


def _names(lexicon: Lexicon, random: Random) -> list[str]:
    names = [*lexicon.female, *lexicon.male]
    random.shuffle(names)
    return names


def _community(
    settings: SmallWorld, lexicon: Lexicon, villages: list[str], random: Random
) -> tuple[dict[str, Person], tuple[tuple[str, str, tuple[str, ...]], ...]]:
    """Three couples for every ten people; the others are their grown children."""
    names = _names(lexicon, random)
    couples = settings.people * 3 // 10
    wives = [name for name in names if name in lexicon.female][:couples]
    husbands = [name for name in names if name in lexicon.male][:couples]
    children = [name for name in names if name not in wives and name not in husbands][: settings.people - 2 * couples]
    parents = {child: random.randrange(couples) for child in children}
    people: dict[str, Person] = {}
    for wife, husband in zip(wives, husbands, strict=True):
        for name in (wife, husband):
            people[name] = _person(name, name == wife, random.choice(PARENTS), lexicon, villages, random)
        people[husband].values["village"] = people[wife].values["village"]  # a couple shares a house
        people[wife].values["spouse"], people[husband].values["spouse"] = husband, wife
    for child, couple in parents.items():
        people[child] = _person(child, child in lexicon.female, random.choice(CHILDREN), lexicon, villages, random)
        people[child].values["mother"], people[child].values["father"] = wives[couple], husbands[couple]
    born = [tuple(child for child in children if parents[child] == couple) for couple in range(couples)]
    return people, tuple(zip(wives, husbands, born, strict=True))


def _person(name: str, female: bool, age: int, lexicon: Lexicon, villages: list[str], random: Random) -> Person:
    values = {"craft": random.choice(list(lexicon.table("crafts"))), "village": random.choice(villages)}
    for attribute, table in (("animal", "animals"), ("dish", "dishes"), ("day", "days")):
        values[attribute] = random.choice(list(lexicon.table(table)))
    values["age"] = str(age)
    return Person(name, female, values)


def _person_facts(people: dict[str, Person]) -> list[Fact]:
    facts = []
    for person in people.values():
        for attribute, value in person.values.items():
            name = "+".join(sorted((person.name, value))) if attribute == "spouse" else person.name
            facts.append(Fact(f"{attribute}:{name}", person.name, attribute, value))
    return facts


def _village_facts(villages: dict[str, dict[str, str]]) -> list[Fact]:
    return [
        Fact(f"{attribute}:{name}", name, attribute, values[attribute])
        for name, values in villages.items()
        for attribute in VILLAGE_ATTRIBUTES
    ]


def _spread(items: list[str], count: int, random: Random) -> list[str]:
    """``count`` items, each used once before any is used twice."""
    rows = [random.sample(items, len(items)) for _ in range(-(-count // len(items)))]
    return [item for row in rows for item in row][:count]
