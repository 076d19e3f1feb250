"""The words of the small world in two languages: articles, genders, plurals, and facts put into sentences."""

import tomllib
from copy import deepcopy
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the world is drawn from the lexicon, and sentences are made from both
    from amauta.data.smallworld.world import World

LANGUAGES = ("en", "es")
_TABLES = {"craft": "crafts", "animal": "animals", "dish": "dishes", "day": "days", "product": "products",
           "feast": "months", "weather": "weathers"}  # fmt: skip


class Lexicon:
    """The tables of ``lexicon.toml``."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.tables = tables
        self.female: list[str] = tables["names"]["female"]
        self.male: list[str] = tables["names"]["male"]
        self.villages: list[str] = tables["villages"]["names"]

    @classmethod
    def load(cls) -> "Lexicon":
        """The lexicon that comes with the package."""
        return cls(tomllib.loads(resources.files(__package__).joinpath("lexicon.toml").read_text(encoding="utf-8")))

    def trimmed(self, most: int) -> "Lexicon":
        """A lexicon whose word tables and lists of phrasings hold at most ``most`` entries, to enumerate its texts."""
        tables = deepcopy(self.tables)
        for name in (*_TABLES.values(), "goods", "activities"):
            tables[name] = dict(list(tables[name].items())[:most])
        for table in (*tables["attribute"].values(), *tables.values()):
            for name, rows in table.items():
                if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                    table[name] = rows[:most]
        return Lexicon(tables)

    def table(self, name: str) -> dict[str, dict[str, Any]]:
        """A table of words, by key."""
        return self.tables[name]

    def forms(self, section: str, name: str, language: str) -> list[Any]:
        """The phrasings of one sort in one language; the same number in every language."""
        return [row[language] for row in self.tables[section][name]]

    def said(self, attribute: str, style: str, language: str) -> list[str]:
        """The phrasings of an attribute: style ``named``, ``pronoun``, ``reversed`` or ``questions``."""
        return [row[language] for row in self.tables["attribute"][attribute].get(style, [])]

    def blanks(self, world: "World", subject: str, attribute: str, value: str, language: str) -> dict[str, str]:
        """What fills the blanks of this attribute's sentences about ``subject``."""
        if attribute == "price":
            return {**self.good(subject, language), "value": value}
        if subject not in world.people:
            return {"name": subject, **self.value(attribute, value, language, False)}
        female = world.people[subject].female
        filled = {"name": subject, **self.gender(female, language), **self.value(attribute, value, language, female)}
        if attribute == "spouse":
            filled.update(self._spouse(world.people[value].female, language))
        return filled

    def value(self, attribute: str, value: str, language: str, female: bool) -> dict[str, str]:
        """The forms of a value: ``value`` as it stands in a sentence, ``bare`` as a short answer, and more."""
        if attribute not in _TABLES:
            return {"value": value, "bare": value}
        entry = self.tables[_TABLES[attribute]][value]
        word = entry.get(language) or entry["f" if female else "m"]
        forms = {"value": word, "bare": word, "the": entry.get("the", word), "its": entry.get("its", "")}
        if attribute == "day":
            forms["days"] = f"{word}s" if language == "en" else entry["plural"]
        if attribute == "craft":
            forms["value"] = f"{_article(word)} {word}" if language == "en" else word
            forms["El"], forms["un"] = ("La", "una") if female else ("El", "un")
        if attribute == "animal":
            forms["value"] = f"{_article(word) if language == 'en' else _un(entry)} {word}"
        if attribute == "weather" and language == "es":
            forms["bare"] = entry["the"]
        return forms

    def gender(self, female: bool, language: str) -> dict[str, str]:
        """Pronouns and endings that agree with a person."""
        if language == "es":
            return {"o": "a" if female else "o", "e": "a" if female else "e"}
        she, her = ("she", "her") if female else ("he", "his")
        return {"She": she.capitalize(), "she": she, "Her": her.capitalize(), "her": her,
                "daughter": "daughter" if female else "son"}  # fmt: skip

    def good(self, key: str, language: str) -> dict[str, str]:
        """The forms of a good: ``a`` and ``A`` with its article, ``goods`` the plural, ``uno`` and ``Un`` to agree."""
        entry = self.tables["goods"][key]
        if language == "en":
            one = f"{_article(entry['en'])} {entry['en']}"
            return {"a": one, "A": one.capitalize(), "goods": entry["ens"], "good": entry["en"]}
        one, feminine = f"{_un(entry)} {entry['es']}", entry["gender"] == "f"
        return {"a": one, "A": one.capitalize(), "goods": entry["ess"], "good": entry["es"],
                "uno": "una" if feminine else "uno", "How_many": "Cuántas" if feminine else "Cuántos"}  # fmt: skip

    def sentence(self, world: "World", subject: str, attribute: str, language: str, form: int = 0, value: str = "",
                 style: str = "named") -> str:  # fmt: skip
        """One sentence (form 0 of ``named`` is the answer's) or question; ``value`` replaces the true value."""
        template = self.said(attribute, style, language)[form]
        value = value or true(world, subject, attribute)
        return template.format(**self.blanks(world, subject, attribute, value, language))

    def _spouse(self, other_is_female: bool, language: str) -> dict[str, str]:
        if language == "en":
            return {"husband": "wife" if other_is_female else "husband"}
        word, article = ("esposa", "la") if other_is_female else ("esposo", "el")
        return {"husband": word, "spouse": f"{article} {word}", "Spouse": f"{article.capitalize()} {word}"}


def true(world: "World", subject: str, attribute: str) -> str:
    """The true value of an attribute of a person, a village or a good."""
    if attribute == "price":
        return str(world.prices[subject])
    return world.people[subject].values[attribute] if subject in world.people else world.villages[subject][attribute]


def conjunction(name: str, language: str) -> str:
    """``and Rosa``; in Spanish ``y Rosa`` but ``e Inti``: y becomes e before the sound i."""
    if language == "en":
        return f"and {name}"
    return f"{'e' if name[0] in 'IÍ' else 'y'} {name}"


def listing(names: list[str] | tuple[str, ...], language: str) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} {conjunction(names[-1], language)}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"  # true of every word of the lexicon


def _un(entry: dict[str, Any]) -> str:
    return "una" if entry["gender"] == "f" else "un"
