"""The README stands in both languages, and they tell the same: the same headings in the same places, the same code."""

import re

import pytest

from tests.rules.sources import ROOT

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "README.es.md")}


def shape(text: str) -> list[str]:
    """What translation leaves as it is, in order: the headings' levels and the blocks of code, whole."""
    found: list[str] = []
    position = 0
    for block in [*BLOCK.finditer(text), None]:
        prose = text[position : block.start() if block else len(text)]
        found += re.findall(r"^#+(?= )", prose, re.MULTILINE) + re.findall(r"^- ", prose, re.MULTILINE)
        if block is not None:
            found.append(block[0])
            position = block.end()
    return found


def test_both_have_the_same_headings_and_code():
    english, spanish = (shape(text) for text in PAGES.values())
    assert len([part for part in english if part.startswith("#")]) > 5
    assert len([part for part in english if part.startswith("```")]) > 3
    assert spanish == english


def test_each_is_linked_from_the_top_of_the_other():
    assert "(README.es.md)" in PAGES["README.md"][:200] and "(README.md)" in PAGES["README.es.md"][:200]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_linked_is_there(page: str):
    missing = [link for link in LINK.findall(PAGES[page]) if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_rule_itself():
    text = "# One\n\nwords\n- point\n```sh\n# no heading\nls\n```\n## Two\n"
    assert shape(text) == ["#", "- ", "```sh\n# no heading\nls\n```", "##"]
