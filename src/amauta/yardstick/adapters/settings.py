"""The settings of ``amauta bench adapters``; no torch here, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL
from amauta.yardstick.settings import TASKS, Yardstick

Part = Literal["tasks", "languages"]
Way = Literal["full", "houlsby", "lora", "bitfit", "prompt", "prefix-layer"]
WAYS: tuple[Way, ...] = get_args(Way)
MODEL = f"the model that learns the tasks; left out: a decoder that is trained here first. {ANY_MODEL}"
ONLY = "tasks: six ways to learn them; languages: a model of one language learns another"
SOURCE = "text that models are trained on first; left out: the small world's, for languages its English"
INTO = "text of the language that it then learns; left out: the small world's Spanish"
REDUCTIONS = "languages: how much narrower than the model its adapters are"

# What --quick changes: a few minutes on two cores.
QUICK: dict[str, Any] = {
    "seeds": 1, "budget": 2e11, "language_budget": 1e11, "megabytes": 0.5, "examples": 150, "heldout_examples": 100,
    "language_width": 96, "rows": 4,
}  # fmt: skip


@dataclass(frozen=True)
class BenchAdapters:
    """The same tasks, the same steps, by each way."""

    out: Annotated[Path, Doc("folder of the results; what stands there finished is not done again")] = Path(
        "bench-adapters"
    )
    model: Annotated[str | None, Doc(MODEL)] = None
    tasks: Annotated[tuple[str, ...], Doc(TASKS)] = ()
    source: Annotated[tuple[str, ...], Doc(SOURCE)] = ()
    into: Annotated[tuple[str, ...], Doc(INTO)] = ()
    only: Annotated[tuple[Part, ...], Doc(ONLY)] = ()
    ways: Annotated[tuple[Way, ...], Doc("ways to learn a task; all of them when left out")] = ()
    quick: Annotated[bool, Doc("small: one seed and a tenth of the FLOPs")] = False
    seeds: Annotated[int, Gt(0), Le(31), Doc("runs of each; from two on there are intervals")] = 3
    seed: Annotated[int, Ge(0), Doc("the first seed")] = 7
    rank: Annotated[int, Gt(0), Doc("lora: rank, on queries and values")] = 8
    reduction: Annotated[int, Gt(0), Doc("houlsby: how much narrower than the model its adapters are")] = 4
    positions: Annotated[int, Gt(0), Doc("prompt, prefix-layer: positions before the text")] = 20
    reductions: Annotated[tuple[int, ...], Doc(REDUCTIONS)] = (16, 48, 384)
    budget: Annotated[float, Gt(0), Doc("FLOPs of training the model that learns the tasks")] = 2e12
    language_budget: Annotated[float, Gt(0), Doc("those of the model of one language")] = 8e12
    share: Annotated[float, Gt(0), Doc("languages: steps of adapting, as a share of those of training before")] = 0.5
    megabytes: Annotated[float, Gt(0), Doc("text of each language")] = 2.0
    vocabulary: Annotated[int, Gt(0), Doc("entries of each tokenizer")] = 1024
    width: Annotated[int, Gt(0), Doc("width of the model that learns the tasks, D; heads are 32 wide")] = 64
    language_width: Annotated[int, Gt(0), Doc("width of the model that learns a language")] = 384
    layers: Annotated[int, Gt(1), Doc("layers of both, L")] = 4
    length: Annotated[int, Ge(32), Doc("tokens of text in a row")] = 128
    rows: Annotated[int, Gt(0), Doc("rows of a batch")] = 8
    examples: Annotated[int, Gt(0), Doc("records of a task to learn; of the small world's opinions two fifths")] = 500
    heldout_examples: Annotated[int, Gt(0), Doc("records of each task that are only answered")] = 200
    epochs: Annotated[float, Gt(0), Doc("passes over a task's records")] = 5.0
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("of the matrix products; auto: bf16 where it is fast")] = "auto"
    threads: Annotated[int | None, Doc("threads; left out: all cores")] = None

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """What --quick stands for, below everything that was given."""
        return QUICK if values.get("quick") else {}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that are asked for, in their own order."""
        return tuple(part for part in get_args(Part) if not self.only or part in self.only)

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def ground(self, **changes: Any) -> Yardstick:
        """The settings of the yardstick's ground and of its runs that this asks for."""
        names = ("seeds", "seed", "budget", "megabytes", "vocabulary", "width", "layers", "length", "rows", "examples",
                 "heldout_examples", "epochs", "device", "dtype", "threads", "tasks", "out")  # fmt: skip
        return Yardstick(
            **{name: getattr(self, name) for name in names} | {"pairs": 1, "corpus": self.source} | changes
        )


NOT_IDENTITY = ("out", "only", "ways", "threads", "seeds")  # may differ when a folder goes on
