"""Help speaks both languages: what stands in the code has its Spanish in base/messages/help.toml, and nothing else.

Each translation keeps a short hash of the English that it was made from, so that none outlives a change of it.
"""

import ast
import hashlib

import pytest

from amauta.base.messages import LANGUAGES, translations
from amauta.cli._door import Command
from amauta.cli._flags import flagged
from amauta.cli._root import found, load
from tests.rules.sources import PACKAGE

FILE = PACKAGE / "base" / "messages" / "help.toml"
OTHERS = set(LANGUAGES) - {"en"}


def fingerprint(english: str) -> str:
    return hashlib.blake2b(english.encode(), digest_size=3).hexdigest()


def commands() -> dict[str, Command]:
    """Every command by its whole name; recipes stand apart, each file of theirs holds both languages itself."""
    groups = {name: load(name) for name in found() if name != "run"}
    alone = {name: thing for name, thing in groups.items() if isinstance(thing, Command)}
    below = {name: thing.commands for name, thing in groups.items() if not isinstance(thing, Command)}
    return alone | {f"{name} {sub}": command for name, subs in below.items() for sub, command in subs.items()}


def spoken() -> dict[tuple[str, str], str]:
    """Everything that help says, in English as the code has it, by the owner and the name of its translation."""
    english = {("files", name): ast.get_docstring(ast.parse(file.read_text())) or "" for name, file in found().items()}
    for name, command in commands().items():
        english["commands", name] = command.help
        for setting in flagged(command.settings):
            english[setting.owner.__name__, setting.path[-1]] = setting.help
    return english


ENGLISH = spoken()
SECTIONS = {".".join(s.path[:-1]) for command in commands().values() for s in flagged(command.settings)} - {""}
TRANSLATED = {(owner, name): texts for owner, names in translations().items() for name, texts in names.items()}


def faults(english: str, texts: dict[str, str] | None) -> list[str]:
    """What is wrong with one translation, with the line of help.toml that mends it."""
    of = fingerprint(english)
    if texts is None:
        return [f'not translated. Write: {{of = "{of}", es = "…"}}. The English: {english}']
    wrong = [f"no text in {language}" for language in sorted(OTHERS) if not texts.get(language, "").strip()]
    if texts.get("of") != of:
        wrong.append(f'the English changed since it was translated. Read "{texts.get("es")}" again beside "{english}", '
                     f'then write of = "{of}"')  # fmt: skip
    return wrong + [f"unknown key {key}" for key in sorted(texts.keys() - OTHERS - {"of"})]


@pytest.mark.parametrize(("owner", "name"), ENGLISH, ids=[".".join(key) for key in ENGLISH])
def test_a_text_of_help_is_translated(owner: str, name: str):
    wrong = faults(ENGLISH[owner, name], TRANSLATED.get((owner, name)))
    assert not wrong, f"{FILE.name}, [{owner}] {name}: {'; '.join(wrong)}"


def test_every_section_has_its_word():
    words = translations()["sections"]
    assert set(words) == SECTIONS
    assert all(set(texts) == OTHERS for texts in words.values())


def test_nothing_is_translated_that_is_not_there():
    unused = {key for key in TRANSLATED if key[0] != "sections"} - ENGLISH.keys()
    assert not unused, f"{FILE.name}: no settings class, field or command has these names: {sorted(unused)}"


def test_a_name_of_a_class_means_one_class():
    owners = {setting.owner for command in commands().values() for setting in flagged(command.settings)}
    assert len({owner.__name__ for owner in owners}) == len(owners), "two settings classes share a name"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (None, "not translated"),
        ({"of": "000000", "es": "pasos"}, 'write of = "56f901"'),
        ({"of": "56f901", "es": " "}, "no text in es"),
        ({"of": "56f901", "es": "pasos", "fr": "pas"}, "unknown key fr"),
    ],
)
def test_the_rule_itself(texts: dict[str, str] | None, words: str):
    assert not faults("steps", {"of": fingerprint("steps"), "es": "pasos"})
    assert words in " ".join(faults("steps", texts))
