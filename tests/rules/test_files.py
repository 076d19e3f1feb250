"""What may not stand in any file: paths of somebody's machine, and large files."""

import re

from tests.rules.sources import ROOT, tracked

# Written so that the pattern does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~*-])/(?:wor[k]|roo[t]|hom[e]/[a-z]\w+|User[s]/\w+|tm[p]|mn[t]|op[t])/[\w.-]+")
TEXT = {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ".json", ".jsonl", ".yml", ".yaml", ".sh", ""}
LARGEST = 1_000_000  # bytes


def test_no_paths_of_a_machine():
    found = [
        f"{file.relative_to(ROOT)}:{number} {match[0]}"
        for file in tracked()
        if file.suffix in TEXT and file.name != "LICENSE"
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := MACHINE_PATH.search(line))
    ]
    assert not found, "\n".join(found)


def test_the_pattern():
    home = "/" + "home/rosa/models"
    assert MACHINE_PATH.search(f"open('{home}')")
    assert not MACHINE_PATH.search("https://example.org/home/page src/work/x ~/opt/x")


def test_no_large_files():
    assert not [str(file.relative_to(ROOT)) for file in tracked() if file.stat().st_size > LARGEST]
