"""The flags of ``amauta models show`` and how its result is shown to people."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt
from typing_extensions import Doc

from amauta.config import Positional


@dataclass
class ShowModel:
    """Settings of ``amauta models show``."""

    name: Annotated[str, Positional(), Doc("a named size, a model folder, a run, a GGUF file or a known model")]
    length: Annotated[int | None, Gt(0), Doc("tokens of a sequence, T; the model's context when left out")] = None
    source: Annotated[int | None, Gt(0), Doc("tokens of the encoder where a decoder follows; T when left out")] = None
    rows: Annotated[int, Gt(0), Doc("sequences at a time, B, for the cache and the activations")] = 1
    vocabulary: Annotated[int | None, Gt(0), Doc("entries of the vocabulary, V, in place of the model's own")] = None


Rows = list[list[str]]


def text(card: dict[str, Any]) -> str:
    """The card as tables."""
    from amauta.base.messages import say

    blocks = [
        f"{card['name']}: {card['kind']}, {card['parameters']:,} {say('card.parameters')}",
        _table(_build(card), left=2),
        say("card.by-part"),
        _table([[part, f"{n:,}", f"{n / card['parameters']:.1%}"] for part, n in card["parts"].items()]),
        *_flops(card["flops_per_token"]),
        *_weights_and_cache(card["memory"]),
        *_training(card["memory"]),
        *_contract(card.get("contract", [])),
    ]
    return "\n".join(blocks)


def _build(card: dict[str, Any]) -> Rows:
    apart = {"name", "kind", "parameters", "parts", "flops_per_token", "memory", "contract"}
    return [[name, _plain(value)] for name, value in card.items() if name not in apart]


def _plain(value: Any) -> str:
    from amauta.base.messages import say

    if isinstance(value, bool):
        return say("card.yes") if value else say("card.no")
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _flops(flops: dict[str, Any]) -> list[str]:
    from amauta.base.messages import say

    head = ["", say("card.forward"), say("card.training")]
    rows = [[name, _count(stack["forward"]), _count(stack["training"])] for name, stack in flops["stacks"].items()]
    return [say("card.flops", lengths=_lengths(flops)), _table([head, *rows])]


def _weights_and_cache(memory: dict[str, Any]) -> list[str]:
    from amauta.base.messages import say
    from amauta.hub.installed import megabytes

    kinds = list(memory["weights"])
    lines = [say("card.weights"), _table([kinds, [megabytes(memory["weights"][kind]) for kind in kinds]], left=0)]
    cache = memory["cache"]
    if not cache["bytes"]:
        return [*lines, say("card.no-cache")]
    rows = [
        [say("card.per-token"), megabytes(cache["per_token"])],
        [_batch(cache), megabytes(cache["bytes"])],
    ]
    if "per_source_token" in cache:
        rows.insert(1, [say("card.per-source-token"), megabytes(cache["per_source_token"])])
    if "bytes_within_windows" in cache:
        rows.append([say("card.within-windows"), megabytes(cache["bytes_within_windows"])])
    return [*lines, say("card.cache", bits=cache["bits"]), _table(rows)]


def _training(memory: dict[str, Any]) -> list[str]:
    from amauta.base.messages import say
    from amauta.hub.installed import megabytes

    states = memory["training"]
    precisions = list(next(iter(states.values())))
    rows = [[name, *(megabytes(row[each]["total"]) for each in precisions)] for name, row in states.items()]
    lines = [say("card.states"), _table([["", *precisions], *rows])]
    names = {
        "all": say("card.kept-all"), "no-squares": say("card.kept-no-squares"),
        "layer-inputs": say("card.kept-layer-inputs"),
    }  # fmt: skip
    kept = [[words, megabytes(memory["activations"][name])] for name, words in names.items()
            if name in memory["activations"]]  # fmt: skip
    if kept:
        lines += [say("card.activations", batch=_batch(memory["activations"])), _table(kept)]
    return lines


def _contract(rows: list[dict[str, Any]]) -> list[str]:
    """What became of the log-probs of its probes at each step of its life."""
    from amauta.base.messages import say

    if not rows:
        return []
    head = [say("contract.step"), "KL", say("contract.tolerated"), say("contract.largest"), say("contract.same"),
            say("contract.perplexity"), ""]  # fmt: skip
    lines = [
        [row["step"], f"{row['kl']:.2g}", "-" if row["tolerance"] is None else f"{row['tolerance']:g}",
         f"{row['largest_difference']:.2g}", f"{row['top1_agreement']:.1%}", f"× {row['perplexity_ratio']:.4g}",
         "" if row["passed"] else say("contract.labelled")]
        for row in rows
    ]  # fmt: skip
    return [say("contract.heading"), _table([head, *lines])]


def _lengths(found: dict[str, Any]) -> str:
    return f"{found['length']}" + (f" + {found['source']}" if "source" in found else "")


def _batch(found: dict[str, Any]) -> str:
    return f"{found['rows']} × {_lengths(found)}"


def _count(number: float) -> str:
    """A number with three figures and the unit of its thousands: ``149 G``."""
    for unit in ("", " k", " M", " G", " T"):
        if number < 999.5 or unit == " T":
            break
        number /= 1000
    return f"{number:.3g}{unit}" if number < 999.5 else f"{number:,.0f}{unit}"


def _table(rows: Rows, left: int = 1) -> str:
    """Cells under each other, the first ``left`` columns to the left and the rest to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
