"""Continue prompts with a model."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc

from amauta.cli._door import command
from amauta.decode.constrain.settings import Constraining
from amauta.decode.search.settings import Search
from amauta.decode.settings import Asked, changed, given
from amauta.decode.speculative.settings import Drafting
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL

if TYPE_CHECKING:
    from amauta.decode.tree.tree import Tree
    from amauta.language_model import Generation


@dataclass
class Generate:
    """Continue prompts with a model."""

    model: Annotated[str, Doc(ANY_MODEL)]
    prompt: Annotated[tuple[str, ...], Doc("a text to continue; may be given several times")] = ()
    file: Annotated[
        tuple[str, ...],
        Doc("prompts: .txt (one a line), .jsonl, .json, .parquet with a field prompt or text; --file - reads stdin"),
    ] = ()
    out: Annotated[Path | None, Doc("write the results here, one JSON object a line")] = None
    samples: Annotated[int, Ge(1), Doc("continuations of each prompt; each counts as a prompt for the seed")] = 1
    tree: Annotated[
        Path | None, Doc("of one prompt: write all that was looked at here, .html to look at, .json to replay")
    ] = None
    batch: Annotated[int, Ge(1), Doc("prompts worked on at a time")] = 32
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"
    cache: Annotated[Literal["int8"] | None, Doc("keep what was read in 8 bits; left out: as the weights")] = None
    sampling: Annotated[Asked, Doc("how tokens are drawn")] = field(default_factory=Asked)
    search: Annotated[Search, Doc("looking for likely answers instead of drawing them")] = field(default_factory=Search)
    drafting: Annotated[Drafting, Doc("guessing tokens ahead")] = field(default_factory=Drafting)
    form: Annotated[Constraining, Doc("what the answer must look like")] = field(default_factory=Constraining)


def _show(result: dict[str, Any]) -> str:
    """The texts as they follow their prompts, a line between several."""
    if "written" in result:
        return str(result["written"])
    return "\n---\n".join(one["prompt"] + one["text"] for one in result.get("results", [result]))


@command(Generate, show=_show)
def generate(settings: Generate) -> dict[str, Any]:
    """Continue prompts with a model.

    A single prompt gives one result; several give "results", in their order. Each result tells the settings that held
    and where they came from. Log-probs are in nats. Prompt i is sampled with seed + i.

    Examples:
      amauta generate --model runs/demo --prompt "Rosa is" --max-tokens 40 --temperature 0
      amauta generate --model runs/demo/model --prompt "Rosa" --prompt "Luis" --top-p 0.9 --seed 7 --json
      amauta generate --model runs/demo --file prompts.jsonl --out answers.jsonl
      echo "La tejedora vende" | amauta generate --model runs/demo --file -
      amauta generate --model smollm2 --prompt "Once upon a time" --beams 4 --returned 2 --json
      amauta generate --model stories15m --prompt "Once upon a time" --samples 5 --max-tokens 20 --tree tree.html
      amauta generate --model smollm2 --prompt "A person as JSON: " --schema person.json
      amauta generate --model smollm2 --prompt "Say it again: a b c a b" --draft lookup --temperature 0
    """
    from amauta.base.errors import ConfigError

    prompts = [*settings.prompt, *(text for name in settings.file for text in _prompts(name))]
    if not prompts:
        raise ConfigError("generate.no-prompt")
    if settings.tree is not None and (len(prompts) > 1 or settings.tree.suffix not in (".html", ".json")):
        raise ConfigError("generate.tree", count=len(prompts), file=settings.tree)
    from amauta.base.messages import say
    from amauta.language_model import load
    from amauta.metrics import console, progress

    prompts = [prompt for prompt in prompts for _ in range(settings.samples)]

    model = load(settings.model, device=settings.device, dtype=settings.dtype, cache=settings.cache)
    asked = given(settings.sampling)
    for group in (settings.search, settings.drafting, settings.form):
        asked |= changed(group)
    with progress(say("generate.working"), len(prompts)) if len(prompts) > 1 else nullcontext() as bar:
        count = bar.advance if bar else lambda: None
        if settings.tree is not None:
            from amauta.language_model.recorded import recorded

            made, tree = recorded(model, prompts[0], settings.samples, on_result=lambda _: count(), **asked)
            _save(tree, settings.tree)
        else:
            made = model.generate(prompts, batch=settings.batch, on_result=lambda _: count(), **asked)
    records = [{"prompt": prompt, **one.record()} for prompt, one in zip(prompts, made, strict=True)]
    cut = sum(one.dropped_tokens > 0 for one in made)
    if cut:
        console.print(say("generate.cut", count=cut, tokens=sum(one.dropped_tokens for one in made)), markup=False)
    failed = [one for one in made if one.failure is not None]
    for one in failed:
        console.print(say("generate.failed", prompt=prompts[made.index(one)], error=one.failure), markup=False)
    if len(made) == 1:
        console.print(_note(made[0]), markup=False)
    if settings.out is not None:
        return _written(records, settings.out)
    result: dict[str, Any] = records[0] if len(records) == 1 else {"results": records}
    return result | {"passed": False} if failed else result


def _note(one: "Generation") -> str:
    """What the text alone does not tell: why it ended, how fast it was, which settings were not default."""
    from amauta.base.messages import say

    special = [f"{name} {one.settings[name]} ({source})" for name, source in one.sources.items() if source != "default"]
    return say(
        "generate.note", tokens=len(one.tokens), speed=f"{one.tokens_per_second:.0f}", finish=one.finish,
        settings=", ".join(special) or say("generate.defaults"),
    ) + _more(one)  # fmt: skip


def _more(one: "Generation") -> str:
    """How guesses fared, and that an answer lacks its end."""
    from amauta.base.messages import say

    found = ""
    if one.drafts is not None:
        rate, each = one.drafts["acceptance_rate"], one.drafts["tokens_per_pass"]
        found += " " + say("generate.drafts", rate="-" if rate is None else f"{rate:.0%}", each=f"{each or 1:.2f}")
    return found + (" " + say("generate.incomplete") if one.complete is False else "")


def _save(tree: "Tree", file: Path) -> None:
    from amauta.decode.tree.page import save_page

    if file.suffix == ".json":
        tree.save(file)
    else:
        save_page(tree, file)


def _prompts(name: str) -> Iterator[str]:
    """The prompts of a file, in its order; blank lines are none. DataError where a record has none."""
    import sys

    from amauta.base.errors import DataError
    from amauta.data.read import read

    if name == "-":
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    for row in read([name]):
        if {".txt", ".md"} & set(row.file.suffixes):
            yield from (line for line in str(row.value["text"]).splitlines() if line.strip())
            continue
        text = row.value.get("prompt", row.value.get("text"))
        if not isinstance(text, str):
            raise DataError("generate.no-field", file=row.file, line=row.line, fields=", ".join(row.value))
        yield text


def _written(records: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    import json

    from amauta.runs import write_atomically

    write_atomically(out, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    tokens = sum(len(record["tokens"]) for record in records)
    return {"written": str(out), "prompts": len(records), "tokens": tokens}
