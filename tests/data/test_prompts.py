"""Prompt templates: rendering by hand-worked cases, the sandbox, and the split of tasks."""

import os
from pathlib import Path

import pytest

from amauta.base.errors import ConfigError, DataError
from amauta.data.overlap import overlaps
from amauta.data.prompts import Template, check_apart, load_templates
from amauta.data.read import Row

YAML = """dataset: glue
subset: rte
templates:
  0001: !Template
    answer_choices: yes ||| no
    jinja: 'Does "{{sentence1}}" mean "{{sentence2}}"? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: means
  0002: !Template
    answer_choices: null
    jinja: '{% if label == 0 %}Write what follows from: {{sentence1}} ||| {{sentence2}}{% endif %}'
    metadata: !TemplateMetadata {original_task: false}
    name: write
"""


def row(**value: object) -> Row:
    return Row(dict(value), Path("x.jsonl"), 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "rte.yaml").write_text(YAML)
    return tmp_path / "rte.yaml"


def test_records_become_prompts(file: Path):
    found = load_templates(file)
    assert (found.task, [one.original for one in found.templates]) == ("glue/rte", [True, False])
    assert found.records(row(sentence1="It rains.", sentence2="It is wet.", label=0)) == [
        {"prompt": 'Does "It rains." mean "It is wet."?', "completion": "yes", "choices": ["yes", "no"],
         "template": "means"},
        {"prompt": "Write what follows from: It rains.", "completion": "It is wet.", "choices": [],
         "template": "write"},
    ]  # fmt: skip
    # a template may ask some records only, and what parts prompt from answer may stand in a record's own text
    (only,) = found.records(row(sentence1="a ||| b", sentence2="c", label=1))
    assert (only["prompt"], only["completion"]) == ('Does "a ||| b" mean "c"?', "no")


def template(jinja: str, choices: str | None = None) -> Template:
    return Template("t", jinja, choices, True, "f.yaml")


def test_choices_of_the_record_and_draws_are_the_same_every_time():
    asked = template("{{text}} ||| {{answer_choices[label]}}", "{{options | join('|||')}}")
    made = asked.render(row(text="q", options=["x", "y"], label=1))
    assert made is not None and (made["choices"], made["completion"]) == (["x", "y"], "y")
    drawn = template("{{ ['a', 'b', 'c', 'd', 'e', 'f'] | choice }} ||| {{ choice([1, 2, 3]) }}")
    seen = [drawn.render(Row({}, Path("x.jsonl"), line)) for line in range(40)]
    assert seen == [drawn.render(Row({}, Path("x.jsonl"), line)) for line in range(40)]
    assert {one["prompt"] for one in seen if one} == set("abcdef")
    common = template("{{ ['a', 'b', 'b', 'a', 'c'] | most_frequent | join }} ||| x").render(row())
    assert common is not None and common["prompt"] == "ab"


def test_faults_are_named(file: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"x\.jsonl:3: the template t cannot be filled.*The record has text"):
        template("{{ other.name }} ||| y").render(row(text="a"))
    with pytest.raises(ConfigError, match="template t is not Jinja"):
        template("{% if %} ||| y").render(row())
    (tmp_path / "other.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"other\.yaml is no file of prompt templates"):
        load_templates(tmp_path / "other.yaml")
    found = load_templates(file)
    with pytest.raises(ConfigError, match="learnt and held out at once: glue/rte"):
        check_apart([found], [found])
    check_apart([found], [])


def test_templates_run_in_a_sandbox(tmp_path: Path):
    for attack in (
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ items.append(1) }}",
    ):
        with pytest.raises(DataError, match="cannot be filled"):
            made = template(f"{attack} ||| y").render(row(items=[1]))
            assert made is None, made
    (tmp_path / "evil.yaml").write_text("dataset: !!python/object/apply:os.getcwd []\ntemplates: {}")
    with pytest.raises(ConfigError, match="no file of prompt templates"):
        load_templates(tmp_path / "evil.yaml")


def test_overlaps_whole_and_by_runs():
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    held = ["A cat.", "two, THREE " + long[14:], long[:40], "a CAT", "zero " + long + " more"]
    assert overlaps(["a cat", long], held) == ([0, 3], [0, 1, 3, 4])
    assert overlaps([], held) == ([], [])


DATA = os.environ.get("AMAUTA_DATA")


@pytest.mark.skipif(not DATA, reason="AMAUTA_DATA is not set")
def test_published_templates_are_read():
    files = sorted((Path(str(DATA)) / "instruct" / "promptsource").glob("*.yaml"))
    found = {one.task: len(one.templates) for one in map(load_templates, files)}
    assert found["glue/rte"] == 5 and found["super_glue/boolq"] == 10 and len(found) == 14
    rte = load_templates(next(file for file in files if "rte" in file.name))
    made = rte.records(row(sentence1="It rains.", sentence2="It is wet.", label=1))
    assert len(made) == 5 and {one["completion"] for one in made} <= {"no", "not entailment"}
