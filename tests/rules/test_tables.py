"""Every table of interchangeable pieces has a property test that runs over the whole table."""

import ast
from importlib import import_module

import pytest

from tests.rules.sources import ROOT, tree

# The table's module and name, and the test file whose property test takes its cases from the table.
TABLES = (
    ("amauta.losses.preference", "PREFERENCE_LOSSES", "tests/losses/test_preference.py"),
    ("amauta.losses.preference", "UNPAIRED_LOSSES", "tests/losses/test_preference.py"),
    ("amauta.losses.policy", "GROUP_ADVANTAGES", "tests/losses/test_policy.py"),
    ("amauta.losses.policy", "AGGREGATIONS", "tests/losses/test_policy.py"),
    ("amauta.train.policy.settings", "METHODS", "tests/train/policy/test_step.py"),
    ("amauta.verify.settings", "PREFERENCES", "tests/verify/test_oracle.py"),
    ("amauta.verify.settings", "POLICIES", "tests/verify/test_oracle.py"),
    ("amauta.worlds.settings", "METHOD_NAMES", "tests/worlds/test_gridworld.py"),
    ("amauta.prompt.methods", "METHODS", "tests/prompt/test_run.py"),
    ("amauta.prompt.conditions", "CHANGES", "tests/prompt/test_labels.py"),
    ("amauta.decode.filters.filters", "FILTERS", "tests/decode/filters/test_filters.py"),
    ("amauta.hub.known", "KNOWN", "tests/hub/test_known.py"),
    ("amauta.adapt.settings", "KINDS", "tests/models/adapters/test_attach.py"),
    ("amauta.train.manners", "MANNERS", "tests/train/test_objectives.py"),
)


def parametrised_over(module: ast.Module) -> set[str]:
    """The names that stand in the arguments of ``pytest.mark.parametrize`` in a test file."""
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.parametrize")
        for argument in node.args[1:]
        for part in ast.walk(argument)
        if isinstance(part, ast.Name | ast.Attribute)
    }


@pytest.mark.parametrize(("module", "table", "test"), TABLES, ids=[table for _, table, _ in TABLES])
def test_the_property_test_runs_over_the_table(module: str, table: str, test: str):
    assert len(getattr(import_module(module), table)) > 0
    assert table in parametrised_over(tree(ROOT / test)), f"{test} must parametrize over {table}"


def test_the_rule_itself():
    text = "@pytest.mark.parametrize('loss', LOSSES, ids=str)\ndef test_a(loss): ...\nprint(OTHER)"
    assert parametrised_over(ast.parse(text)) == {"LOSSES"}
