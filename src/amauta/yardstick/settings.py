"""The settings of ``amauta yardstick``; no torch here, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.device import DeviceName, NumberType

Part = Literal["families", "objectives", "nsp", "start"]
PARTS: tuple[Part, ...] = get_args(Part)
ONLY = "families: the four; objectives: the T5 table; nsp: does next-sentence prediction help; start: from nothing"
PAIRS = "minimal pairs to prefer: records with good and bad, as BLiMP has them; each file is a probe"
TASKS = "classes to learn: records with text (text_pair) and label; a fifth of each is held out; the small world's else"
PAGE = "write the results as a page in Markdown here, and in Spanish beside it (.es.md), with their plots"

# What --quick changes: three minutes on two cores.
QUICK: dict[str, Any] = {
    "seeds": 1, "budget": 2e11, "table_budget": 5e10, "megabytes": 0.5, "examples": 200, "heldout_examples": 100,
    "pairs": 100, "pseudo": 10, "rows": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Yardstick:
    """One corpus, one tokenizer, so many FLOPs for each system."""

    out: Annotated[Path, Doc("folder of the results; what stands there finished is not done again")] = Path("yardstick")
    corpus: Annotated[tuple[str, ...], Doc("running text to learn; the small world's documents when left out")] = ()
    minimal_pairs: Annotated[tuple[str, ...], Doc(PAIRS)] = ()
    tasks: Annotated[tuple[str, ...], Doc(TASKS)] = ()
    only: Annotated[tuple[Part, ...], Doc(ONLY)] = ()
    quick: Annotated[bool, Doc("small: one seed and a tenth of the FLOPs")] = False
    plan: Annotated[bool, Doc("print what would be trained, with its FLOPs, and stop")] = False
    page: Annotated[Path | None, Doc(PAGE)] = None
    seeds: Annotated[int, Gt(0), Le(31), Doc("runs of each system; from two on there are intervals")] = 3
    seed: Annotated[int, Ge(0), Doc("the first seed")] = 7
    budget: Annotated[float, Gt(0), Doc("training FLOPs of each family's system")] = 2e12
    table_budget: Annotated[
        float, Gt(0), Doc("those of the T5 table's first system; the others take as many steps")
    ] = 4e11
    megabytes: Annotated[float, Gt(0), Doc("training text, drawn from the corpus")] = 2.0
    vocabulary: Annotated[int, Gt(0), Doc("entries of the tokenizer, which is trained on that text")] = 1024
    width: Annotated[int, Gt(0), Doc("width of every model, D; heads are 32 wide")] = 64
    layers: Annotated[int, Gt(1), Doc("layers of a stack, L; half of them where depth is halved")] = 4
    length: Annotated[int, Ge(32), Doc("tokens of text in a row")] = 128
    rows: Annotated[int, Gt(0), Doc("rows of a batch")] = 8
    order: Annotated[int, Ge(2), Le(6), Doc("order of the n-gram model")] = 5
    examples: Annotated[int, Gt(0), Doc("records of a task to learn; of the small world's opinions two fifths")] = 500
    heldout_examples: Annotated[int, Gt(0), Doc("records of each task that are only answered")] = 200
    epochs: Annotated[float, Gt(0), Doc("passes over a task's records")] = 3.0
    pairs: Annotated[int, Gt(0), Doc("minimal pairs of each probe")] = 200
    pseudo: Annotated[
        int, Gt(0), Doc("held-out documents of the pseudo-log-likelihood, which costs a pass a token")
    ] = 24
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
        return tuple(part for part in PARTS if not self.only or part in self.only)

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)


NOT_IDENTITY = ("out", "only", "plan", "page", "threads", "seeds")  # may differ when a folder goes on
