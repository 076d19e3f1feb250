"""Files of 600 lines at most, functions of 80."""

import ast

import pytest

from tests.rules.sources import ROOT, tracked, tree

FILE_LINES, FUNCTION_LINES = 600, 80
FILES = [file for file in tracked() if file.suffix == ".py"]


def long_functions(module: ast.Module, limit: int) -> list[str]:
    """``name (lines)`` of every function longer than ``limit``, from its ``def`` to its last line."""
    sizes = [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [f"{name} ({size} lines)" for name, size in sizes if size > limit]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_are_short(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, f"{lines} lines; {FILE_LINES} allowed"
    assert not long_functions(tree(file), FUNCTION_LINES)


def test_the_rule_itself():
    text = "def f():\n    a = 1\n    return a\n\nclass C:\n    async def g(self):\n        return 2\n"
    assert long_functions(ast.parse(text), 2) == ["f (3 lines)"]
    assert long_functions(ast.parse(text), 1) == ["f (3 lines)", "g (2 lines)"]
