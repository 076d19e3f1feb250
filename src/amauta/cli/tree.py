"""Look at decoding trees: what was considered, what was dropped, and whether a model wrote it so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from typing_extensions import Doc

from amauta.cli._door import Group
from amauta.config import Positional
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL

if TYPE_CHECKING:
    from amauta.decode.tree.tree import Tree

app = Group("tree")


@dataclass
class ShowTree:
    """Settings of ``amauta tree show``."""

    file: Annotated[Path, Positional(), Doc("a tree, as amauta generate --tree FILE.json writes it")]
    html: Annotated[Path | None, Doc("write the tree as a page here")] = None


@dataclass
class ReplayTree:
    """Settings of ``amauta tree replay``."""

    file: Annotated[Path, Positional(), Doc("a tree, as amauta generate --tree FILE.json writes it")]
    model: Annotated[str, Doc(ANY_MODEL)]
    tolerance: Annotated[float, Ge(0), Doc("how far a token's log-prob may be off, in nats")] = 1e-3
    again: Annotated[bool, Doc("also write the texts again from the recorded settings and seed")] = False
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"


def _drawing(result: dict[str, Any]) -> str:
    """The tree in lines, or where its page stands."""
    from amauta.decode.tree.text import drawing
    from amauta.decode.tree.tree import Tree

    return str(result["written"]) if "written" in result else drawing(Tree.load(result["file"]))


@app.command("show", ShowTree, show=_drawing)
def show(settings: ShowTree) -> dict[str, Any]:
    """Show a decoding tree in the terminal, or write it as a page.

    Tokens that follow each other stand in one line, after the probability of the first; brackets tell what was dropped,
    finished or chosen. The page shows the alternatives of each step and what the filters removed.

    Examples:
      amauta tree show beams.json
      amauta tree show beams.json --html beams.html
      amauta tree show beams.json --json
    """
    from amauta.decode.tree.text import ends, known
    from amauta.decode.tree.tree import Tree

    tree = Tree.load(settings.file)
    texts = [
        {"node": end, "text": tree.text(end), "state": tree.nodes[end].state,
         "logprob": tree.logprob(end) if known(tree, end) else None}
        for end in ends(tree)
    ]  # fmt: skip
    facts: dict[str, Any] = {"file": str(settings.file), "method": tree.method, "prompt": tree.prompt,
                             "settings": tree.settings, "budget": tree.budget, "nodes": len(tree.nodes) - 1,
                             "texts": texts}  # fmt: skip
    if settings.html is not None:
        from amauta.decode.tree.page import save_page

        save_page(tree, settings.html)
        facts["written"] = str(settings.html)
    return facts


@app.command("replay", ReplayTree)
def replay(settings: ReplayTree) -> dict[str, Any]:
    """Compute every log-prob of a decoding tree again with a model, and tell how far off the record is.

    Each sequence is read whole, without a cache. Exits with 1 when a token is off by more than the tolerance, or when
    --again writes other texts.

    Examples:
      amauta tree replay beams.json --model smollm2
      amauta tree replay sample.json --model runs/demo --again --json
    """
    from amauta.decode.tree.replay import replay as work
    from amauta.decode.tree.tree import Tree
    from amauta.language_model import load

    tree = Tree.load(settings.file)
    model = load(settings.model, device=settings.device, dtype=settings.dtype)
    found = work(tree, model.model, encode=lambda given: _read(model, given))
    result: dict[str, Any] = {
        "method": tree.method, "tokens": found.tokens, "skipped": found.skipped, "largest": found.token,
        "node": found.node, "path": found.path, "passed": found.token <= settings.tolerance and found.tokens > 0,
    }  # fmt: skip
    if settings.again:
        same, count = _again(tree, model)
        result |= {"again": same, "texts": count, "passed": result["passed"] and same == count}
    return result


def _again(tree: "Tree", model: Any) -> tuple[int, int]:
    """How many of the tree's texts come again, and how many there are."""
    from collections import Counter

    from amauta.base.errors import DataError
    from amauta.decode.tree.replay import answers

    recorded = answers(tree)
    if not recorded or not tree.nodes[0].ids:
        raise DataError("tree.no-again", method=tree.method)
    prompt = tree.facts.get("source", tree.nodes[0].ids)
    asked = {name: value for name, value in tree.settings.items() if tree.sources.get(name, "argument") == "argument"}
    made = model.generate([prompt] * recorded.total(), **asked)
    return (recorded & Counter(tuple(one.tokens) for one in made)).total(), recorded.total()


def _read(model: Any, given: str | Sequence[Any]) -> Sequence[int]:
    """The ids of a text, or of messages that are to be answered."""
    from amauta.tokenize.chat import render

    return model.tokenizer.prompt(given) if isinstance(given, str) else render(model.tokenizer, given, reply=True).ids
