"""Labelled sentences and translations of the small world: opinions, claims that follow or not, two languages."""

from collections.abc import Callable
from random import Random
from typing import Any

from amauta.data.smallworld.documents import Documents
from amauta.data.smallworld.grammar import replay, sample
from amauta.data.smallworld.lexicon import LANGUAGES
from amauta.data.smallworld.questions import Questions
from amauta.data.smallworld.world import Fact

Row = dict[str, Any]
_ATTEMPTS = 50  # per row that is wanted: enough to find nearly every distinct row of a small world


class Labels:
    """Rows with labels, made from the facts that a split may state."""

    def __init__(self, questions: Questions, documents: Documents) -> None:
        self.questions = questions
        self.documents = documents
        self.world = questions.world
        self.lexicon = questions.lexicon
        self.of_subject: dict[str, list[Fact]] = {}
        for fact in questions.asked:
            self.of_subject.setdefault(fact.subject, []).append(fact)

    def sentiment(self, random: Random, facts: list[Fact]) -> Row:
        """One opinion on a market, the weather or an animal. ``facts`` is not used: opinions state none."""
        language = random.choice(LANGUAGES)
        tables = self.lexicon.tables["sentiment"]
        adjective, thing = random.choice(tables["adjectives"]), random.choice(tables["things"])
        names = random.sample(self.world.common_people, 2)
        village = random.choice(self.world.common_villages)
        the = thing[language].format(village=village, owner=names[0])
        several = thing["agree"].endswith("s")
        if language == "en":
            verb, word = "are" if several else "is", adjective["en"]
        else:
            verb, word = "son" if several else "es", adjective[thing["agree"]]
            verb = f"no {verb}" if adjective.get("negated") else verb
        frame = random.choice(tables["frames"])[language]
        text = frame.format(the=the, The=the[0].upper() + the[1:], adjective=word, name=names[1], **{"is": verb})
        return {"text": text, "label": adjective["label"], "language": language}

    def entailment(self, random: Random, facts: list[Fact]) -> Row:
        """A sentence that is true in the world, and a claim: it follows, it contradicts, or neither."""
        fact, language = random.choice(facts), random.choice(LANGUAGES)
        first, second = self._two_forms(fact, language, random)
        label = random.choice(("entailment", "contradiction", "neutral"))
        about = fact
        if label == "entailment":
            claim = self._state(fact, language, second)
        elif label == "contradiction":
            claim = self._state(fact, language, second, self.questions.wrong(fact, random))
        else:
            about = self._another(fact, random)
            claim = self._state(about, language, 0)
        text = self._state(fact, language, first)
        return {"text": text, "text_pair": claim, "label": label, "language": language, "facts": [fact.id, about.id]}

    def paraphrase(self, random: Random, facts: list[Fact]) -> Row:
        """Two sentences: one fact in two phrasings, or two facts (of one person, or of two people)."""
        fact, language = random.choice(facts), random.choice(LANGUAGES)
        first, second = self._two_forms(fact, language, random)
        label = random.choice(("paraphrase", "different"))
        about = fact
        if label == "different":
            alike = [row for row in self.questions.asked if row.attribute == fact.attribute and row.id != fact.id]
            about = random.choice(alike) if alike and random.random() < 0.5 else self._another(fact, random)
            second = second if about.attribute == fact.attribute else 0
        text, other = self._state(fact, language, first), self._state(about, language, second)
        return {"text": text, "text_pair": other, "label": label, "language": language, "facts": [fact.id, about.id]}

    def translation(self, random: Random, facts: list[Fact]) -> Row:
        """One derivation rendered in both languages, to translate one way or the other."""
        fact = random.choice(facts)
        rules: list[tuple[Callable, tuple]] = [
            (self.documents.statement, (fact.subject, fact.attribute, True)),
            (self.documents.anyone, ()),
            (self.documents.buyer, ()),
        ]
        if self.world.couples:
            rules.append((self.documents.scene, (random.randrange(len(self.world.couples)),)))
        rule, rest = random.choice(rules)
        english = sample(rule("en", *rest), random)
        texts = {"en": english.text, "es": replay(rule("es", *rest), english.choices).text}
        source, target = random.sample(LANGUAGES, 2)
        prompt = random.choice(self.lexicon.forms("translation", "asked", source)).format(text=texts[source])
        return {"prompt": prompt, "completion": texts[target], **texts, "from": source, "facts": english.marked("fact")}

    def distinct(self, make: Callable[[Random, list[Fact]], Row], facts: list[Fact], count: int, purpose: str,
                 known: set) -> list[Row]:  # fmt: skip
        """At most ``count`` rows whose texts are new; ``known`` holds the texts of all splits and grows."""
        random = self.questions.random(purpose)
        rows: list[Row] = []
        for _ in range(count * _ATTEMPTS):
            if len(rows) == count:
                break
            row = make(random, facts)
            key = (row.get("text", row.get("en")), row.get("text_pair"))
            if key not in known:
                known.add(key)
                rows.append(row)
        return rows

    def _state(self, fact: Fact, language: str, form: int, value: str = "") -> str:
        return self.lexicon.sentence(self.world, fact.subject, fact.attribute, language, form, value or fact.value)

    def _two_forms(self, fact: Fact, language: str, random: Random) -> list[int]:
        return random.sample(range(len(self.lexicon.said(fact.attribute, "named", language))), 2)

    def _another(self, fact: Fact, random: Random) -> Fact:
        """Another fact that training may state: of the same subject if it has one, else of anyone."""
        mine = [row for row in self.of_subject.get(fact.subject, []) if row.attribute != fact.attribute]
        return random.choice(mine or [row for row in self.questions.asked if row.id != fact.id])
