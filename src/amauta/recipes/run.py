"""Run a recipe: each stage a child process, finished ones kept, an interrupted one gone on with.

``DIR/stages.json`` (ledger.py) says what was done. A stage is kept when its command, its flags, the content that it
reads and the package's version are what they were, and what it made is there.
"""

import contextlib
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import amauta
from amauta.base.errors import ConfigError, Interrupted, RunError
from amauta.base.messages import say
from amauta.base.names import did_you_mean
from amauta.metrics import plain
from amauta.recipes import ledger as ledgers
from amauta.recipes.child import Ended, lock, run_child
from amauta.recipes.goals import flat
from amauta.recipes.learned import missed
from amauta.recipes.numbers import duration
from amauta.recipes.recipe import Given, Recipe, Stage, check, fill, model_before, read, values
from amauta.runs import Run, aside, digest, replace_folder

Overrides = Sequence[str]


class StageFailed(RunError):
    """A stage ended with an error of its own, already printed; its exit code is passed on."""

    def __init__(self, code: int, **fields: object) -> None:
        super().__init__("recipes.stage-failed", code=code, **fields)
        self.exit_code = code


def run(
    recipe: str | Path,
    *,
    dir: str | Path | None = None,
    set: Overrides = (),
    command: Sequence[str] | None = None,
    check_line: Callable[[list[str]], object] | None = None,
    **inputs: Any,
) -> dict[str, Any]:
    """Run a recipe (a name inside the package, or a TOML file) in ``dir`` (default ``runs/NAME``), or go on with it.

    ``set`` overrides flags of stages (``"pretrain.steps=200"``), ``inputs`` are what the recipe asks for, ``command``
    is what runs a stage (default: this Python's ``amauta``); ``check_line`` sees the words of every stage before the
    first one runs, and may raise.
    Returns ``{"passed", "stages": [{"name", "seconds", "metrics", "state"}…], "dir", "report", "model", "missed"}``.
    Raises ConfigError (the recipe or what was given is wrong), RunError (the folder is another's, or in use),
    StageFailed (with the stage's exit code), Interrupted (after Ctrl-C; the same call goes on).
    """
    wanted = override(read(recipe), set)
    given = values(wanted, inputs)
    folder = Path(dir) if dir is not None else Path("runs") / wanted.name
    for stage, blanks in planned(wanted, given, folder):
        if check_line is not None:
            check_line([*stage.command.split(), *arguments(fill_flags(stage, blanks))])
    ledgers.open_for(folder, wanted)  # refuses another's folder before a lock is written into it
    with lock(folder) as hold:
        words = command or (sys.executable, "-m", "amauta")
        work = _Work(wanted, given, folder, words, _again(wanted, given, dir, set))
        try:
            return work.all(hold)
        except KeyboardInterrupt:
            raise Interrupted("recipes.interrupted-between", again=work.again) from None


def override(recipe: Recipe, changes: Overrides) -> Recipe:
    """The recipe with flags replaced: each change reads ``stage.setting=value``, the value in TOML or as plain text.

    Raises ConfigError: not of this form, or an unknown stage (with the nearest name). Whether the stage's command
    knows the setting, the command says.
    """
    stages = {stage.name: stage for stage in recipe.stages}
    for change in changes:
        path, equals, text = change.partition("=")
        name, dot, setting = path.strip().partition(".")
        if not (equals and dot and setting):
            raise ConfigError("recipes.bad-set", value=change)
        if name not in stages:
            raise ConfigError("recipes.unknown-stage", recipe=recipe.name, name=name, hint=did_you_mean(name, stages))
        same = {known.replace("-", "_"): known for known in stages[name].flags}
        key = same.get(setting.replace("-", "_"), setting)
        stages[name] = replace(stages[name], flags={**stages[name].flags, key: _value(text.strip())})
    changed = replace(recipe, stages=tuple(stages.values()))
    check(changed)
    return changed


def planned(recipe: Recipe, given: Given, folder: Path) -> list[tuple[Stage, Given]]:
    """The stages that will run with these inputs, each with the values of its placeholders."""
    found: list[tuple[Stage, Given]] = []
    for stage in recipe.stages:
        if lacking(stage, given) is None:
            model = model_before(recipe, [earlier for earlier, _ in found])
            found.append((stage, ledgers.real_blanks(given, model, folder)))
    return found


def lacking(stage: Stage, given: Given) -> str | None:
    """The input that the stage needs and that was not given, or None."""
    return next((name for name in stage.needs if given[name] is None), None)


class _Work:
    """One run under way."""

    def __init__(self, recipe: Recipe, given: Given, folder: Path, command: Sequence[str], again: str) -> None:
        self.recipe, self.given, self.folder, self.command, self.again = recipe, given, folder, command, again
        self.ledger = ledgers.open_for(folder, recipe)
        self.before: list[Stage] = []  # the stages that have done their work in this run

    def all(self, hold: int | None) -> dict[str, Any]:
        """Every stage, the published model, the report and the verdicts."""
        from amauta.recipes import report

        self.ledger["again"] = self.again
        ledgers.save(self.folder, self.ledger)
        for stage in self.recipe.stages:
            name = lacking(stage, self.given)
            if name is not None:
                _tell(say("recipes.skipped", stage=stage.name, input=name))
                self._note(stage, state="skipped", lacking=name, seconds=0.0, metrics={}, fingerprint=None)
                continue
            self._stage(stage, hold)
            self.before.append(stage)
        model = self._publish()
        self.ledger["ended"] = _now()
        ledgers.save(self.folder, self.ledger)
        written = report.write(self.folder)
        misses = missed(self.ledger)
        stages = [{name: record[name] for name in ("name", "seconds", "metrics", "state")}
                  for record in self.ledger["stages"]]  # fmt: skip
        return {"passed": not misses, "stages": stages, "dir": str(self.folder), "report": str(written),
                "model": None if model is None else str(model), "missed": misses}  # fmt: skip

    def _stage(self, stage: Stage, hold: int | None) -> None:
        """Keep the stage, go on with it, or run it from its beginning."""
        model = model_before(self.recipe, self.before)
        blanks = ledgers.real_blanks(self.given, model, self.folder)
        record = ledgers.record_of(self.ledger, stage.name)
        print_of_it = ledgers.fingerprint(stage, self.given, model, self.folder, amauta.__version__)
        made = [Path(path) for path in fill(stage.makes, blanks) or []]
        same = record.get("fingerprint") == print_of_it
        if same and record["state"] == "ended" and all(path.exists() for path in made):
            _tell(say("recipes.kept", stage=stage.name, time=duration(record["seconds"])))
            return
        flags = fill_flags(stage, blanks)
        resume = same and stage.resumable and record["state"] == "begun" and any(Run(p).latest() for p in made)
        past = self.folder / "before" / stage.name
        if not resume and ledgers.put_aside(self.folder, made, past if record["state"] == "ended" else None):
            _tell(say("recipes.again", stage=stage.name, folder=past) if record["state"] == "ended"
                  else say("recipes.from-start", stage=stage.name))  # fmt: skip
        line = [*stage.command.split(), *arguments(flags), *(["--resume"] if resume else [])]
        spent = record.get("seconds", 0.0) if resume else 0.0
        self._note(stage, state="begun", fingerprint=print_of_it, flags=flags, line=line, seconds=spent, metrics={},
                   began=_now(), ended=None, complaint=None,
                   folders=[str(path.relative_to(self.folder)) for path in made])  # fmt: skip
        _tell(f"\n$ {shlex.join(['amauta', *line])}")
        ended = run_child([*self.command, *line, "--json"], hold=hold)
        self._close(stage, ended, spent + ended.seconds)
        if past.exists():
            shutil.rmtree(past)
            with contextlib.suppress(OSError):  # other stages may still keep theirs there
                past.parent.rmdir()

    def _close(self, stage: Stage, ended: Ended, seconds: float) -> None:
        """Write down how the stage ended, or raise what stops the run."""
        if ended.code in (0, 1) and ended.result is not None and not (ended.interrupted and ended.code):
            metrics = plain(ended.result)
            complaint = metrics.pop("error", None) or (say("recipes.command-missed") if ended.code else None)
            self._note(stage, state="ended", seconds=round(seconds, 3), metrics=metrics, ended=_now(),
                       complaint=complaint)  # fmt: skip
            _tell(say("recipes.stage-time", stage=stage.name, time=duration(seconds)))
            if ended.interrupted:  # Ctrl-C in the stage's last moment: it has ended, the run stops here
                raise Interrupted("recipes.interrupted-between", again=self.again)
            return
        self._note(stage, seconds=round(seconds, 3))
        if ended.interrupted or ended.code == Interrupted.exit_code:
            raise Interrupted("recipes.interrupted", stage=stage.name, again=self.again)
        if ended.code == 0:
            raise RunError("recipes.no-result", stage=stage.name, command=stage.command)
        kept = ", ".join(done.name for done in self.before) or "–"
        raise StageFailed(ended.code, stage=stage.name, kept=kept, again=self.again)

    def _note(self, stage: Stage, **what: Any) -> None:
        ledgers.record_of(self.ledger, stage.name).update(what)
        ledgers.save(self.folder, self.ledger)

    def _publish(self) -> Path | None:
        """Copy the last model of this run to DIR/model, and say where it is."""
        template = model_before(self.recipe, self.before)
        if template is None:
            return None
        source = Path(fill(template, {"dir": (str(self.folder),)}))
        final = Run(self.folder).model
        if not source.is_dir():
            raise RunError("recipes.no-model", path=source)
        if not final.is_dir() or digest(final) != digest(source):
            made = aside(final)
            try:
                shutil.copytree(source, made)
                replace_folder(made, final)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        return final


def fill_flags(stage: Stage, blanks: Given) -> dict[str, Any]:
    """The stage's flags with their placeholders filled, without those whose input was not given."""
    filled = {name: fill(value, blanks) for name, value in flat(stage.flags).items()}
    return {name: value for name, value in filled.items() if value is not None}


def arguments(flags: dict[str, Any]) -> list[str]:
    """Flags as a user types them: ``--top-k 5``, ``--text a b``, ``--compile`` and ``--no-compile``."""
    line: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            *sections, last = flag[2:].split(".")
            line.append(flag if value else "--" + ".".join([*sections, f"no-{last}"]))
            continue
        items = [str(item) for item in (value if isinstance(value, list) else [value])]
        if any(item.startswith("-") for item in items):  # would be read as flags
            line += [f"{flag}={item}" for item in items]
        else:
            line += [flag, *items]
    return line


def _again(recipe: Recipe, given: Given, folder: str | Path | None, changes: Overrides) -> str:
    """The command line that goes on with this run."""
    parts = ["amauta", "run", recipe.source, *([] if folder is None else ["--dir", str(folder)])]
    for name, several in given.items():
        default = recipe.inputs[name].default
        if several is not None and several != (default if isinstance(default, tuple) else (default,)):
            parts += [f"--{name.replace('_', '-')}", *several]
    for change in changes:
        parts += ["--set", change]
    return shlex.join(parts)


def _value(text: str) -> Any:
    """A value written in TOML (5, 0.1, true, ["a", "b"], "text"), or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
