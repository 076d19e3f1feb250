"""The documents of the small world: a grammar over its facts, one rule a method, the same shape in both languages.

Every text has exactly one derivation: rules only choose what they write down at once, and no two options of a rule
write the same words. ``grammar.parse`` and the tests hold that to account.
"""

from itertools import permutations

from amauta.data.smallworld.grammar import Mark, Node, Option, even, fill, rule
from amauta.data.smallworld.lexicon import LANGUAGES, Lexicon, conjunction, listing, true
from amauta.data.smallworld.world import VILLAGE_ATTRIBUTES, World

KINDS = {"portrait": 40, "family": 7, "place": 7, "directory": 7, "market": 10, "diary": 7, "talk": 7,
         "chronicle": 9, "lesson": 6}  # shares in per cent  # fmt: skip
REVERSED = ("craft", "animal", "dish", "day")  # stated from value to person where the value is unique in a village
SUMS = range(2, 20)
TIMES = range(2, 10)


class Documents:
    """The grammar of all documents of a world; ``root`` yields them.

    ``longest`` caps the number of sentences of every kind, so that a test can enumerate a small grammar whole.
    ``reserved`` makes the documents about the reserved people and villages instead: portraits and villages only.
    """

    def __init__(self, world: World, lexicon: Lexicon, *, longest: int = 9, reserved: bool = False) -> None:
        self.nodes: dict[tuple, Node] = {}
        self.world = world
        self.lexicon = lexicon
        self.longest = longest
        self.people = world.common_people
        self.villages = world.common_villages
        self.subjects = list(world.reserved_people) if reserved else self.people
        self.places = list(world.reserved_villages) if reserved else self.villages
        self.known = {village: self._known(village) for village in self.places}
        self.kinds = {"portrait": 1, "place": 1} if reserved else dict(KINDS)
        if not world.couples:
            self.kinds.pop("family", None)
        if not any(self.known.values()):
            self.kinds.pop("directory", None)
        self.root = self.document()

    @rule
    def document(self) -> list[Option]:
        """One language or the other, evenly."""
        return even(*[(Mark("language", language), self.of(language)) for language in LANGUAGES])

    @rule
    def of(self, language: str) -> list[Option]:
        """The kinds of documents, by their shares."""
        return [Option(share, (Mark("kind", kind), getattr(self, kind)(language)))
                for kind, share in self.kinds.items()]  # fmt: skip

    # ---- words
    @rule
    def village(self) -> list[Option]:
        return even(*[(name,) for name in self.villages])

    @rule
    def person(self) -> list[Option]:
        return even(*[(name,) for name in self.people])

    @rule
    def other(self, *known: str) -> list[Option]:
        return even(*[(name,) for name in self.people if name not in known])

    @rule
    def and_other(self, language: str, name: str) -> list[Option]:
        return even(*[(conjunction(other, language),) for other in self.people if other != name])

    @rule
    def day(self, language: str) -> list[Option]:
        return even(*[(row[language],) for row in self.lexicon.table("days").values()])

    @rule
    def one(self, language: str) -> list[Option]:
        return even(*[(self.lexicon.good(key, language)["a"],) for key in self.world.prices])

    @rule
    def goods(self, language: str) -> list[Option]:
        return even(*[(self.lexicon.good(key, language)["goods"],) for key in self.world.prices])

    @rule
    def several(self, language: str) -> list[Option]:
        return even(*[(f"{number} ", self.goods(language)) for number in TIMES])

    @rule
    def activity(self, language: str, finite: bool) -> list[Option]:
        form = {"en": "ens", "es": "ess"}[language] if finite else language
        return even(*[(row[form],) for row in self.lexicon.table("activities").values()])

    def _kinds_of(self, section: str, sort: str, language: str, /, **slots: str | Node) -> list[Option]:
        return even(*[fill(form, **slots) for form in self.lexicon.forms(section, sort, language)])

    def _counts(self, low: int, high: int) -> range:
        return range(min(low, self.longest), min(high, self.longest) + 1)

    # ---- portraits
    @rule
    def portrait(self, language: str) -> list[Option]:
        """A person: an opening or none, four to six facts in any order, up to two events."""
        return even(*[(self.about(language, name),) for name in self.subjects])

    @rule
    def about(self, language: str, name: str) -> list[Option]:
        blanks = {"name": name, **self.lexicon.gender(self.world.people[name].female, language)}
        openings = [form.format(**blanks) for form in self.lexicon.forms("portrait", "openings", language)]
        options = [Option(1, (f"{text} ", self.length(language, name, False))) for text in openings]
        return [*options, Option(len(openings), (self.length(language, name, True),))]

    @rule
    def length(self, language: str, name: str, first: bool) -> list[Option]:
        attributes = frozenset(self.world.people[name].values)
        return even(*[(self.facts(language, name, attributes, count, first),) for count in self._counts(4, 6)])

    @rule
    def facts(self, language: str, name: str, left: frozenset[str], count: int, first: bool) -> list[Option]:
        """The next fact, among those not yet told; the very first must name the person. Then up to two events."""
        if count == 0:
            happened = (" ", self.event(language, name))
            return even((), happened, happened * min(2, self.longest)) if self.longest > 1 else even((), happened)
        options = []
        for attribute in self.world.people[name].values:
            if attribute in left:
                after = self.facts(language, name, left - {attribute}, count - 1, False)
                gap = "" if first or left == frozenset(self.world.people[name].values) else " "
                options.append((gap, self.statement(language, name, attribute, first), after))
        return even(*options)

    @rule
    def statement(self, language: str, subject: str, attribute: str, named: bool) -> list[Option]:
        """One fact, in one of its phrasings: with the name, or (unless ``named``) with a pronoun."""
        mark = Mark("fact", self._id(subject, attribute))
        blanks = self.lexicon.blanks(self.world, subject, attribute, true(self.world, subject, attribute), language)
        said = self.lexicon.said(attribute, "named", language)
        if not named:
            said = said + self.lexicon.said(attribute, "pronoun", language)
        return even(*[(mark, form.format(**blanks)) for form in said])

    # ---- what happened
    @rule
    def event(self, language: str, name: str) -> list[Option]:
        """Something that ``name`` did with somebody: no fact, all chance."""
        slots = {"name": name, "day": self.day(language), "village": self.village(), "other": self.other(name),
                 "one": self.one(language), "several": self.several(language), "do": self.activity(language, False),
                 "and_other": self.and_other(language, name)}  # fmt: skip
        return self._kinds_of("event", "forms", language, **slots)

    @rule
    def anyone(self, language: str) -> list[Option]:
        return even(*[(self.event(language, name),) for name in self.people])

    @rule
    def chronicle(self, language: str) -> list[Option]:
        """Three to five events."""
        openings = self._kinds_of("chronicle", "openings", language, village=self.village())
        return [Option(1, (*opening.parts, self.events(language))) for opening in openings]

    @rule
    def events(self, language: str) -> list[Option]:
        return even(*[(" ", self.anyone(language)) * count for count in self._counts(3, 5)])

    # ---- families
    @rule
    def family(self, language: str) -> list[Option]:
        """A couple, its children, and what they do in the evening."""
        couples = range(len(self.world.couples))
        return even(*[(self.couple(language, number, first),) for number in couples for first in (0, 1)])

    @rule
    def couple(self, language: str, number: int, first: int) -> list[Option]:
        pair = self.world.couples[number][:2]
        a, b = pair[first], pair[1 - first]
        slots = {"a": a, "b": b, "and_b": conjunction(b, language),
                 **self.lexicon.gender(self.world.people[a].female, language)}  # fmt: skip
        after = (" ", self.children(language, number), self.evening(language, number))
        mark = Mark("fact", self._id(a, "spouse"))
        return [Option(1, (mark, *option.parts, *after))
                for option in self._kinds_of("family", "couples", language, **slots)]  # fmt: skip

    @rule
    def children(self, language: str, number: int) -> list[Option]:
        names = self.world.couples[number][2]
        if not names:
            return self._kinds_of("family", "none", language)
        marks = [Mark("fact", self._id(name, parent)) for name in names for parent in ("mother", "father")]
        daughters = all(self.world.people[name].female for name in names)
        if language == "en":
            words = ("daughter" if daughters else "son", "daughters" if daughters else "children", "a ")
        else:
            words = ("hija", "hijas", "una ") if daughters else ("hijo", "hijos", "un ")
        slots = {"count": str(len(names)), "children": listing(names, language), "child": words[len(names) > 1],
                 "a_child": words[2] + words[0]}  # fmt: skip
        form = "one" if len(names) == 1 else "more"
        return [Option(1, (*marks, *option.parts)) for option in self._kinds_of("family", form, language, **slots)]

    @rule
    def evening(self, language: str, number: int) -> list[Option]:
        return even(*[(" ", self.scene(language, number)) * count for count in self._counts(3, 5)])

    @rule
    def scene(self, language: str, number: int) -> list[Option]:
        slots = {"member": self.member(number), "does": self.activity(language, True)}
        return self._kinds_of("family", "scenes", language, **slots)

    @rule
    def member(self, number: int) -> list[Option]:
        wife, husband, children = self.world.couples[number]
        return even(*[(name,) for name in (wife, husband, *children)])

    # ---- villages
    @rule
    def place(self, language: str) -> list[Option]:
        """A village: two to four of its facts in any order, up to two people who live there."""
        return even(*[(self.village_page(language, name),) for name in self.places])

    @rule
    def village_page(self, language: str, name: str) -> list[Option]:
        size = self.size(language, name)
        openings = self._kinds_of("place", "openings", language, village=name)
        return [Option(1, (*opening.parts, size)) for opening in openings]

    @rule
    def size(self, language: str, name: str) -> list[Option]:
        every = frozenset(VILLAGE_ATTRIBUTES)
        return even(*[(self.traits(language, name, every, count),) for count in self._counts(2, 4)])

    @rule
    def traits(self, language: str, name: str, left: frozenset[str], count: int) -> list[Option]:
        if count == 0:
            return [Option(1, ()), *self.residents(language, name)]
        return even(*[
            (" ", self.statement(language, name, trait, False), self.traits(language, name, left - {trait}, count - 1))
            for trait in VILLAGE_ATTRIBUTES
            if trait in left
        ])  # fmt: skip

    def residents(self, language: str, village: str) -> list[Option]:
        """One or two people of a village, in any order."""
        names = self.world.residents(village)
        pairs = permutations(names, 2) if self.longest > 1 else ()
        options = [Option(1 / len(names), (" ", self.resident(language, name))) for name in names]
        both = [(" ", self.resident(language, a), " ", self.resident(language, b)) for a, b in pairs]
        return [*options, *[Option(1 / len(both), row) for row in both]]

    @rule
    def resident(self, language: str, name: str) -> list[Option]:
        person = self.world.people[name]
        craft = self.lexicon.value("craft", person.values["craft"], language, person.female)["value"]
        marks = (Mark("fact", self._id(name, "village")), Mark("fact", self._id(name, "craft")))
        said = self._kinds_of("place", "residents", language, name=name, craft=craft)
        return [Option(1, (*marks, *option.parts)) for option in said]

    # ---- from the value to the person
    @rule
    def directory(self, language: str) -> list[Option]:
        """Who is the one weaver of a village, who keeps its one llama: two to four people of it, in any order."""
        options = []
        for name in self.places:
            most = min(len(self.known[name]), 4)
            if most:
                entries = self.entries(language, name, frozenset(self.known[name]), min(2, most), most)
                openings = self._kinds_of("directory", "openings", language, village=name)
                options += [Option(1, (*opening.parts, entries)) for opening in openings]
        return options

    @rule
    def entries(self, language: str, village: str, left: frozenset[str], low: int, high: int) -> list[Option]:
        return even(*[(self.next_entry(language, village, left, count),) for count in self._counts(low, high)])

    @rule
    def next_entry(self, language: str, village: str, left: frozenset[str], count: int) -> list[Option]:
        if count == 0:
            return even(("",))
        return even(*[
            (" ", self.entry(language, village, name), self.next_entry(language, village, left - {name}, count - 1))
            for name in self.known[village]
            if name in left
        ])  # fmt: skip

    @rule
    def entry(self, language: str, village: str, name: str) -> list[Option]:
        options = []
        for attribute in self.known[village][name]:
            marks = (Mark("fact", self._id(name, attribute)), Mark("fact", self._id(name, "village")))
            value = true(self.world, name, attribute)
            blanks = {"village": village, **self.lexicon.blanks(self.world, name, attribute, value, language)}
            for form in self.lexicon.said(attribute, "reversed", language):
                options.append((*marks, form.format(**blanks)))
        return even(*options)

    def _known(self, village: str) -> dict[str, list[str]]:
        """The residents of a village who are the only ones of it with some value, and those attributes."""
        people = self.world.residents(village)
        unique: dict[str, list[str]] = {}
        for name in people:
            mine = self.world.people[name].values
            others = [self.world.people[other].values for other in people if other != name]
            alone = [key for key in REVERSED if all(values[key] != mine[key] for values in others)]
            if alone:
                unique[name] = alone
        return unique

    # ---- markets, weather, talk, sums
    @rule
    def market(self, language: str) -> list[Option]:
        """A market day: two or three purchases with the sum worked out, and a price."""
        openings = self._kinds_of("market", "openings", language, village=self.village(), day=self.day(language))
        return [Option(1, (*opening.parts, self.purchases(language))) for opening in openings]

    @rule
    def purchases(self, language: str) -> list[Option]:
        price = (" ", self.price(language))
        return even(*[(" ", self.buyer(language)) * count + end for count in self._counts(2, 3) for end in ((), price)])

    @rule
    def price(self, language: str) -> list[Option]:
        return even(*[(self.statement(language, good, "price", True),) for good in self.world.prices])

    @rule
    def buyer(self, language: str) -> list[Option]:
        return even(*[(self.purchase(language, name),) for name in self.people])

    @rule
    def purchase(self, language: str, name: str) -> list[Option]:
        slots = {"name": name, "other": self.other(name), "item": self.item(language)}
        return self._kinds_of("market", "purchases", language, **slots)

    @rule
    def item(self, language: str) -> list[Option]:
        options = []
        for good, price in self.world.prices.items():
            for number in TIMES:
                words = {"n": str(number), "price": str(price), "total": str(number * price)}
                words |= self.lexicon.good(good, language)
                for form in self.lexicon.forms("market", "items", language):
                    options.append((Mark("fact", self._id(good, "price")), form.format(**words)))
        return even(*options)

    @rule
    def diary(self, language: str) -> list[Option]:
        """The weather of four to six days running, drawn from what is usual in that village."""
        options = []
        for village in self.villages:
            slots = {"village": village, "name": self.person()}
            for opening in self._kinds_of("diary", "openings", language, **slots):
                options.append((*opening.parts, self.week(language, village)))
        return even(*options)

    @rule
    def week(self, language: str, village: str) -> list[Option]:
        days = [row[language] for row in self.lexicon.table("days").values()]
        form = self.lexicon.tables["diary"]["day"][language]
        options = []
        for start in range(len(days)):
            for count in self._counts(4, 6):
                running = [days[(start + step) % len(days)] for step in range(count)]
                sky = self.sky(language, village)
                options.append([part for day in running for part in fill(f"\n{form}", Day=day.capitalize(), sky=sky)])
        return even(*options)

    @rule
    def sky(self, language: str, village: str) -> list[Option]:
        return [Option(chance, (self._word(key, language), self.later(language, village, key)))
                for key, chance in self._chances(village).items()]  # fmt: skip

    @rule
    def later(self, language: str, village: str, first: str) -> list[Option]:
        then = self.lexicon.tables["diary"]["then"][language]
        degrees = even(*[(f", {self.lexicon.table('weathers')[first]['warm'] + rise}",) for rise in range(8)])
        changed = [Option(chance, (then, self._word(key, language), self.degrees(first)))
                   for key, chance in self._chances(village).items() if key != first]  # fmt: skip
        total = sum(option.weight for option in changed)
        return [Option(1 / len(degrees), option.parts) for option in degrees] + [
            Option(option.weight / total, option.parts) for option in changed
        ]

    @rule
    def degrees(self, weather: str) -> list[Option]:
        lowest = self.lexicon.table("weathers")[weather]["warm"]
        return even(*[(f", {lowest + rise}",) for rise in range(8)])

    def _chances(self, village: str) -> dict[str, int]:
        usual = self.world.villages[village]["weather"]
        return {key: 4 if key == usual else 1 for key in self.lexicon.table("weathers")}

    def _word(self, weather: str, language: str) -> str:
        return self.lexicon.table("weathers")[weather][language]

    @rule
    def talk(self, language: str) -> list[Option]:
        """Two people meet: a greeting, one or two questions and answers, a farewell or none."""
        return even(*[(self.meeting(language, name),) for name in self.people])

    @rule
    def meeting(self, language: str, a: str) -> list[Option]:
        return even(*[
            (*[f"{a}: ", *greeting.parts, " ", self.exchange(language, a, b)],)
            for b in self.people
            if b != a
            for greeting in self._kinds_of("talk", "greetings", language, b=b)
        ])  # fmt: skip

    @rule
    def exchange(self, language: str, a: str, b: str) -> list[Option]:
        """``a`` asks, ``b`` answers, and perhaps asks back."""
        rows = []
        for asked, answer in self._exchanges(language, a, b):
            end = self.farewell(language, a, b)
            rows.append((f"{asked}\n{b}: ", *answer, end))
            for asked_back, answer_back in self._exchanges(language, a, b) if self.longest > 1 else ():
                if asked_back != asked:
                    end = self.farewell(language, b, a)
                    rows.append((f"{asked}\n{b}: ", *answer, f" {asked_back}\n{a}: ", *answer_back, end))
        return even(*rows)

    def _exchanges(self, language: str, a: str, b: str) -> list[tuple[str, tuple]]:
        slots = {"village": self.village(), "other": self.other(*sorted((a, b))), "one": self.one(language),
                 "several": self.several(language), "do": self.activity(language, False)}  # fmt: skip
        forms = self.lexicon.forms("talk", "exchanges", language)
        return [(asked, fill(answer, **slots)) for asked, answer in forms]

    @rule
    def farewell(self, language: str, a: str, b: str) -> list[Option]:
        forms = self._kinds_of("talk", "farewells", language, b=b, day=self.day(language))
        return [Option(len(forms), ("",)), *[Option(1, (f"\n{a}: ", *form.parts)) for form in forms]]

    @rule
    def lesson(self, language: str) -> list[Option]:
        """Sums at school: every product of the times table, and sums up to 38."""
        openings = self._kinds_of("lesson", "openings", language, name=self.person(), village=self.village())
        return [Option(1, (*opening.parts, self.lines(language))) for opening in openings]

    @rule
    def lines(self, language: str) -> list[Option]:
        return even(*[(" ", self.line(language)) * count for count in self._counts(6, 9)])

    @rule
    def line(self, language: str) -> list[Option]:
        return even((self.sums(language, "times"),), (self.sums(language, "plus"),))

    @rule
    def sums(self, language: str, operation: str) -> list[Option]:
        numbers = TIMES if operation == "times" else SUMS
        pairs = sorted({*permutations(numbers, 2), *((number, number) for number in numbers)})
        options = []
        for a, b in pairs:
            words = {"a": str(a), "b": str(b), "c": str(a * b if operation == "times" else a + b)}
            options += [(form.format(**words),) for form in self.lexicon.forms("lesson", operation, language)]
        return even(*options)

    def _id(self, subject: str, attribute: str) -> str:
        if attribute == "spouse":
            return f"spouse:{'+'.join(sorted((subject, self.world.people[subject].values['spouse'])))}"
        return f"{attribute}:{subject}"
