"""What a method of prompting can be told: one field a setting. Without torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from amauta.config import Positional
from amauta.decode.constrain.settings import Constraining
from amauta.decode.settings import Asked, given
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL
from amauta.prompt.thoughts.settings import Thoughts

MethodName = Literal["direct", "few-shot", "cot", "self-consistency", "best-of-n", "scratchpad", "tot", "got", "mcts"]
Layout = Literal["auto", "chat", "plain"]
Vote = Literal["majority", "weighted"]
Inference = Literal["direct", "channel"]
Condition = Literal["none", "gold", "random", "other-inputs", "random-words", "labels-only", "inputs-only"]


@dataclass(frozen=True)
class Output:
    """The form that an answer must have. Decoding allows nothing else where it can; else the answer is parsed, with
    one call for its repair."""

    form: Annotated[
        Literal["text", "json", "csv", "labels", "xml"], Doc("the form of an answer; what does not parse is wrong")
    ] = "text"
    fields: Annotated[tuple[str, ...], Doc("json, csv, xml: names that must be there; the last holds the answer")] = (
        "answer",
    )
    constrain: Annotated[bool, Doc("let the model write nothing but the form")] = False
    repair: Annotated[bool, Doc("ask once more, with the error, when an answer does not parse")] = True


@dataclass(frozen=True)
class Prompting:
    """How one example is asked; the same for every method, each reads what it knows."""

    shots: Annotated[
        int | None,
        Ge(0),
        Doc("demonstrations; left out: 4 for few-shot and scratchpad, as far as there are, none for others"),
    ] = None
    demonstration_seed: Annotated[int, Ge(0), Doc("which demonstrations are shown")] = 0
    order_seed: Annotated[int, Ge(0), Doc("in which order")] = 0
    template: Annotated[Path | None, Doc("a layout, TOML; the task's own when left out")] = None
    layout: Annotated[Layout, Doc("as turns of a dialogue or as plain text; auto: chat where the model can")] = "auto"
    trigger: Annotated[str, Doc("zero-shot chain of thought: what the reasoning begins with")] = (
        "Let's think step by step."
    )
    conclusion: Annotated[str, Doc("zero-shot chain of thought: what asks for the answer after it")] = (
        "Therefore, the answer is"
    )
    samples: Annotated[int, Gt(0), Doc("self-consistency, best-of-n: chains of thought that are sampled")] = 40
    vote: Annotated[Vote, Doc("a vote for each path, or each weighed by its likelihood, normalised by length")] = (
        "majority"
    )
    output: Annotated[Output, Doc("the form of an answer")] = field(default_factory=Output)
    sampling: Annotated[Asked, Doc("how tokens are drawn")] = field(default_factory=Asked)
    constraining: Annotated[Constraining, Doc("the form that every text must have")] = field(
        default_factory=Constraining
    )
    thoughts: Annotated[Thoughts, Doc("searches over thoughts")] = field(default_factory=Thoughts)

    def drawn(self, **usual: Any) -> dict[str, Any]:
        """Arguments of ``generate``: what the user gave, over what is usual for the method."""
        forms = {
            f.name: value for f in fields(Constraining) if (value := getattr(self.constraining, f.name)) != f.default
        }
        return {**usual, **given(self.sampling), **forms}


@dataclass(frozen=True)
class Ask:
    """Which examples of which task are asked of which model."""

    task: Annotated[str, Positional(), Doc("a task of the package, or a file of examples (.jsonl, .json, .parquet)")]
    model: Annotated[str, Doc(ANY_MODEL)]
    examples: Annotated[int, Gt(0), Doc("examples that are asked")] = 20
    seed: Annotated[int, Ge(0), Doc("which examples")] = 0
    shown: Annotated[
        Path | None, Doc("demonstrations for a task from a file; its own first records when left out, never asked")
    ] = None
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"


@dataclass(frozen=True)
class RunPrompt(Prompting, Ask):
    """Ask a model the examples of a task by one method."""

    method: Annotated[MethodName, Doc("how it is asked")] = "direct"
    seeds: Annotated[
        int, Gt(0), Doc("runs over the examples, with seeds of demonstrations, order and sampling counted up")
    ] = 1
    out: Annotated[Path | None, Doc("append every result here, one JSON object a line; the same call goes on")] = None
    tree: Annotated[
        Path | None, Doc("write the tree of an answer here, .html or .json; of several, one file each: out-1.html …")
    ] = None


@dataclass(frozen=True)
class ComparePrompts(Prompting, Ask):
    """Ask a model the examples of a task by several methods."""

    methods: Annotated[tuple[str, ...], Doc("the methods, words or parted by commas")] = ("direct", "few-shot", "cot")
    seeds: Annotated[
        int, Gt(0), Doc("runs over the examples, with seeds of demonstrations, order and sampling counted up")
    ] = 1
    out: Annotated[Path | None, Doc("a folder for the results, one file a method; the same call goes on")] = None


@dataclass(frozen=True)
class ShowPrompt(Prompting, Ask):
    """Show the prompts of one example."""

    method: Annotated[MethodName, Doc("how it is asked")] = "direct"
    number: Annotated[int, Gt(0), Doc("which of the examples, from 1")] = 1


@dataclass(frozen=True)
class PromptRecords:
    """Write records to train on."""

    task: Annotated[str, Positional(), Doc("a task of the package that can be learnt")]
    out: Annotated[Path, Doc("write the records here, prompt and completion, one JSON object a line")]
    count: Annotated[int, Gt(0), Doc("records")] = 10_000
    seed: Annotated[int, Ge(0), Doc("which records")] = 0
    steps: Annotated[bool, Doc("the completion holds a scratchpad before the answer")] = True


@dataclass(frozen=True)
class LabelExperiment(Ask):
    """What demonstrations teach: their labels, or only their form? (``amauta prompt labels``)"""

    shots: Annotated[int, Gt(0), Doc("demonstrations")] = 16
    seeds: Annotated[int, Gt(0), Doc("draws of demonstrations, of their order and of false labels")] = 5
    conditions: Annotated[tuple[Condition, ...], Doc("what the demonstrations are")] = ("none", "gold", "random")
    correct: Annotated[tuple[int, ...], Doc("also with so many per cent of the labels right: 75,50,25,0")] = ()
    inference: Annotated[
        Inference, Doc("direct: the label that is likeliest after the text; channel: the one after which the text is")
    ] = "direct"
    calibrate: Annotated[bool, Doc("divide by what the labels get after an input without content")] = False
    content_free: Annotated[tuple[str, ...], Doc("inputs without content")] = ("N/A", "", "[MASK]")
    template: Annotated[Path | None, Doc("a layout, TOML; the task's own when left out")] = None
    out: Annotated[Path | None, Doc("write every prediction here, one JSON object a line")] = None
