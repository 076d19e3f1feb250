"""What is asked about the small world: facts, sums and preferences, split so that held-out facts are never asked."""

from itertools import combinations_with_replacement, count, islice
from random import Random
from typing import Any

from amauta.base.seeds import derive
from amauta.data.smallworld.documents import SUMS, TIMES
from amauta.data.smallworld.lexicon import LANGUAGES, Lexicon, true
from amauta.data.smallworld.world import CHILDREN, PARENTS, VILLAGE_ATTRIBUTES, Fact, SmallWorld, World

TONES = ("polite", "neutral", "rude")
Row = dict[str, Any]


TAUGHT = 2  # asked facts that must have a held-out fact's value


def split_facts(world: World, seed: int) -> tuple[list[Fact], list[Fact]]:
    """(facts that training may ask, facts that it never asks): one held out of each subject where one can be.

    What is unseen is the fact and not the word: a value is held out only while ``TAUGHT`` other subjects (of the same
    gender, since Spanish words change with it) are asked and have it; a person's name, which stands in many answers,
    needs none. Nobody is held out whole. A marriage goes with both of its subjects.
    """
    random = Random(derive(seed, "smallworld", "split"))
    common = [fact for fact in world.facts if not world.is_reserved(fact)]
    held: set[str] = set()
    people, places = list(world.common_people), list(world.common_villages)
    random.shuffle(people)
    random.shuffle(places)
    for number, name in enumerate([*people, *places[::2]]):
        if any(row.id in held for row in common if row.subject == name):
            continue
        mine = list(world.people[name].values) if name in world.people else list(VILLAGE_ATTRIBUTES)
        for step in range(len(mine)):
            attribute = mine[(number + step) % len(mine)]
            fact = next(fact for fact in common if (fact.subject, fact.attribute) == (name, attribute))
            if _may_be_held(fact, common, held | {fact.id}, world):
                held.add(fact.id)
                break
    return [fact for fact in common if fact.id not in held], [fact for fact in common if fact.id in held]


def _may_be_held(fact: Fact, common: list[Fact], held: set[str], world: World) -> bool:
    """Whether the asked facts still teach the attribute and the value of every held-out one when ``held`` are."""
    asked = [row for row in common if row.id not in held]
    for one in (row for row in common if row.id in held and row.attribute == fact.attribute):
        like = [row for row in asked if row.attribute == one.attribute]
        if one.value not in world.people:
            like = [row for row in like if row.value == one.value and _gender(row, world) == _gender(one, world)]
        if len(like) < (1 if one.value in world.people else TAUGHT):
            return False
    return True


def _gender(fact: Fact, world: World) -> bool | None:
    return world.people[fact.subject].female if fact.subject in world.people else None


class Questions:
    """Dialogues and preferences over the facts of a world, and the openers that carry their tone."""

    def __init__(self, settings: SmallWorld, world: World, lexicon: Lexicon) -> None:
        self.settings = settings
        self.world = world
        self.lexicon = lexicon
        self.asked, self.held = split_facts(world, settings.seed)

    def random(self, *purpose: str) -> Random:
        """A generator of its own for one purpose."""
        return Random(derive(self.settings.seed, "smallworld", *purpose))

    def openers(self, tone: str, language: str) -> list[str]:
        """What stands before the sentence of an answer: nothing when the tone is neutral."""
        return [""] if tone == "neutral" else [f"{text} " for text in self.lexicon.forms("tones", tone, language)]

    def accepted(self, sentence: str, language: str, tones: tuple[str, ...] = TONES) -> list[str]:
        """Every answer that says this sentence, under every opener of these tones."""
        return [opener + sentence for tone in tones for opener in self.openers(tone, language)]

    def all_questions(self, facts: list[Fact]) -> list[tuple[Fact, str, int]]:
        """Every phrasing, in both languages, of the question for each of these facts."""
        return [(fact, language, form) for fact in facts for language in LANGUAGES
                for form in range(len(self.lexicon.said(fact.attribute, "questions", language)))]  # fmt: skip

    def facts(self, facts: list[Fact], count: int, purpose: str) -> list[Row]:
        """``count`` dialogues; each question comes once before any comes again (held-out questions never do)."""
        random = self.random("dialogues", purpose)
        rows = []
        for fact, language, form in self._deal(self.all_questions(facts), count, purpose != "train", random):
            question = self._ask(fact, language, form)
            sentence = self._say(fact, language)
            tone = self._tone(random)
            answer = random.choice(self.openers(tone, language)) + sentence
            rows.append({"messages": _dialogue(question, answer), "accepted": self.accepted(sentence, language),
                         "fact": fact.id, "kind": "fact", "tone": tone, "language": language})  # fmt: skip
        return rows

    def arithmetic(self) -> tuple[list[Row], list[Row], list[Row]]:
        """(training, held-out, practice) worked sums. A held-out pair of operands is never asked in training, in either
        order; practice asks for held-out pairs in words that no held-out question has.

        The pairs themselves stand in the documents (school sums), as the facts do.
        """
        random = self.random("arithmetic")
        splits: tuple[list, list] = ([], [])
        for operation, numbers in (("times", TIMES), ("plus", SUMS)):
            pairs = list(combinations_with_replacement(numbers, 2))
            held = set(random.sample(pairs, len(pairs) // 5))
            for pair in pairs:
                splits[pair in held].append((operation, pair))
        counts = (self.settings.arithmetic, self.settings.heldout_arithmetic)
        train, heldout = ([self._sum(*row, random) for row in self._deal(rows, number, False, random)]
                          for rows, number in zip(splits, counts, strict=True))  # fmt: skip
        asked = {row["messages"][0]["content"] for row in heldout}
        random = self.random("practice")
        every = (pair for _ in count() for pair in random.sample(splits[1], len(splits[1])))
        drawn = (self._sum(*pair, random) for pair in every)
        fresh = (row for row in drawn if row["messages"][0]["content"] not in asked)
        return train, heldout, list(islice(fresh, self.settings.practice))

    def preferences(self, facts: list[Fact], count: int, purpose: str) -> list[Row]:
        """``count`` pairs, in turn: polite against rude or plain (both right), and right against wrong (both polite).

        ``accepted_preferred`` lists the answers that are right and polite.
        """
        random = self.random("preferences", purpose)
        rows = []
        for number, asked in enumerate(self._deal(self.all_questions(facts), count, purpose != "train", random)):
            fact, language, form = asked
            sentence = self._say(fact, language)
            opener = random.choice(self.openers("polite", language))
            if number % 2 == 0:
                kind, worse = "polite", random.choice(self.openers(random.choice(TONES[1:]), language)) + sentence
            else:
                kind, worse = "right", opener + self._say(fact, language, self.wrong(fact, random))
            rows.append({
                "prompt": [{"role": "user", "content": self._ask(fact, language, form)}],
                "chosen": [{"role": "assistant", "content": opener + sentence}],
                "rejected": [{"role": "assistant", "content": worse}],
                "accepted_preferred": self.accepted(sentence, language, ("polite",)),
                "fact": fact.id, "kind": kind, "language": language,
            })  # fmt: skip
        return rows

    def wrong(self, fact: Fact, random: Random) -> str:
        """A value that this fact does not have, of the same sort (a mother is replaced by another woman)."""
        world = self.world
        if fact.attribute in ("spouse", "mother", "father"):
            female = world.people[fact.value].female
            others = [name for name in world.common_people if name not in (fact.subject, fact.value)]
            pool = [name for name in others if world.people[name].female == female] or others
        elif fact.attribute == "village":
            pool = world.common_villages
        elif fact.attribute == "age":
            pool = [str(age) for age in (*CHILDREN, *PARENTS)]
        else:
            pool = [row.value for row in world.facts if row.attribute == fact.attribute and not world.is_reserved(row)]
        pool = sorted(set(pool) - {fact.value})
        return random.choice(pool) if pool else str(int(fact.value) + 1)  # only prices can all be the same

    def retrieval(self, fact: Fact, context: str, language: str) -> list[Row]:
        """The questions about one fact that a passage states: short answer first, then the sentence."""
        lexicon, world = self.lexicon, self.world
        bare = lexicon.blanks(world, fact.subject, fact.attribute, fact.value, language)["bare"]
        forms = range(len(lexicon.said(fact.attribute, "questions", language)))
        return [{"question": self._ask(fact, language, form), "context": context,
                 "answers": [bare, self._say(fact, language)], "fact": fact.id, "language": language}
                for form in forms]  # fmt: skip

    def _ask(self, fact: Fact, language: str, form: int) -> str:
        return self.lexicon.sentence(self.world, fact.subject, fact.attribute, language, form, style="questions")

    def _say(self, fact: Fact, language: str, value: str = "") -> str:
        value = value or true(self.world, fact.subject, fact.attribute)
        return self.lexicon.sentence(self.world, fact.subject, fact.attribute, language, 0, value)

    def _tone(self, random: Random) -> str:
        polite, rude = self.settings.polite, self.settings.rude
        return random.choices(TONES, (polite, max(0.0, 1 - polite - rude), rude))[0]

    def _deal(self, rows: list, count: int, once: bool, random: Random) -> list:
        """``count`` rows in random order, every row once before any comes again; with ``once`` no row comes again."""
        dealt: list = []
        while rows and len(dealt) < count:
            dealt += random.sample(rows, min(len(rows), count - len(dealt)))
            if once:
                break
        return dealt

    def _sum(self, operation: str, pair: tuple[int, int], random: Random) -> Row:
        language = random.choice(LANGUAGES)
        question, answer = random.choice(self.lexicon.forms("arithmetic", operation, language))
        n, b = random.sample(pair, 2)
        sign, c = ("×", n * b) if operation == "times" else ("+", n + b)
        words = {"n": str(n), "b": str(b), "c": str(c), "name": random.choice(self.world.common_people),
                 **self.lexicon.good(random.choice(list(self.world.prices)), language)}  # fmt: skip
        steps = f"{n} {sign} {b} = {c}. {answer.format(**words)}"
        return {"messages": _dialogue(question.format(**words), steps), "accepted": self.accepted(steps, language),
                "fact": f"{operation}:{min(pair)},{max(pair)}", "kind": "arithmetic", "tone": "neutral",
                "language": language}  # fmt: skip


def _dialogue(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
