"""Examples of a task as the ids that a model reads, in the manner of BERT, of GPT-1 or of T5.

Radford et al. 2018, section 3.3: ``[START] text [EXTRACT]``; ``[START] premise [DELIM] hypothesis [EXTRACT]``; both
orders of a pair for similarity; ``[START] context [DELIM] choice [EXTRACT]`` for each choice. Devlin et al. 2019:
``[CLS] a [SEP] b [SEP]``, as the model's own tokenizer lays it out. Raffel et al. 2020: a prompt, and the answer as text.
"""  # noqa: E501

from collections.abc import Sequence
from dataclasses import dataclass, field

from amauta.base.errors import ConfigError, DataError, ModelError
from amauta.base.messages import say
from amauta.data.buckets import Laid
from amauta.data.tasks import Example, Task
from amauta.metrics import console
from amauta.models.spec import Spec
from amauta.tokenize.added import DELIM, EXTRACT, START, places
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.tokenizer import shorten
from amauta.train.finetune.settings import Finetune


@dataclass(frozen=True)
class Passage:
    """Where the passage of a question stands in its row, and the characters of each of its tokens."""

    first: int
    characters: list[tuple[int, int]]
    text: str


@dataclass
class Prepared:
    """The examples that are used, each with its ids, and what was cut or left out."""

    examples: list[Example] = field(default_factory=list)
    laid: list[Laid] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)  # of spans, one an example
    sizes: list[int] = field(default_factory=list)  # examples of each file
    records: int = 0
    dropped: int = 0
    cut: int = 0
    lost: int = 0  # answers of spans that a cut took away

    def counts(self) -> dict[str, int]:
        found = {"records": self.records, "kept": len(self.laid), "dropped": self.dropped, "cut": self.cut}
        return found | ({"answers_lost": self.lost} if self.lost else {})


ABLE: dict[str, tuple[str, ...]] = {  # the kinds of task that each manner can learn
    "bert": ("classification", "regression", "choice", "span"),
    "gpt": ("classification", "regression", "choice"),
    "t5": ("classification", "regression", "text"),
}
BY: dict[str, tuple[str, ...]] = {  # and the kinds of model
    "bert": ("encoder", "decoder", "encoder-decoder"),
    "gpt": ("decoder",),
    "t5": ("decoder", "encoder-decoder"),
}


def check_able(settings: Finetune, kind: str, spec: Spec) -> None:
    """ConfigError for a kind of task that the manner cannot learn, and for settings that mean nothing to it; ModelError
    for a model that cannot. Each names what can."""
    if kind not in ABLE[settings.manner]:
        fits = ", ".join(manner for manner, kinds in ABLE.items() if kind in kinds)
        raise ConfigError("finetune.other-manner", kind=kind, manner=settings.manner, fits=fits)
    idle = {
        "--labels": bool(settings.labels) and kind != "classification",
        "--input": settings.input is not None and settings.manner != "t5",
        "--templates": bool(settings.templates) and settings.manner != "t5",
        "--both-orders": settings.both_orders and settings.manner != "gpt",
        "--rank": settings.rank and (settings.manner != "t5" or kind != "classification"),
        "--see-prompt": settings.see_prompt
        and (settings.manner != "t5" or kind != "classification" or spec.kind != "decoder"),
        "--no-answer": settings.no_answer is not None and kind != "span",
        "--classifier-dropout": settings.classifier_dropout is not None and (settings.manner == "t5" or kind == "span"),
    }
    if any(idle.values()):
        flags = ", ".join(flag for flag, given in idle.items() if given)
        raise ConfigError("finetune.no-effect", flags=flags, kind=kind, manner=settings.manner)
    kinds = ("encoder",) if kind == "span" else BY[settings.manner]
    if spec.kind not in kinds or spec.reformer is not None:
        raise ModelError(
            "finetune.other-model", model=settings.model, kind="reformer" if spec.reformer is not None else spec.kind,
            manner=settings.manner, task=kind, fits=", ".join(kinds),
        )  # fmt: skip


class Layout:
    """How one run lays out examples."""

    def __init__(self, settings: Finetune, task: Task, tokenizer: AnyTokenizer, spec: Spec, length: int) -> None:
        self.settings, self.kind, self.tokenizer, self.spec, self.length = settings, task.kind, tokenizer, spec, length
        self.labels, self.classes = task.labels, task.classes
        self.marks: list[int] = []
        if settings.manner == "gpt":
            ids = {name: id for id, name in tokenizer.names.items()}
            self.marks = [ids[name] for name in (START, DELIM, EXTRACT)]

    @property
    def names(self) -> tuple[str, ...]:
        """What each class is called when it is written."""
        return self.labels or tuple(map(str, range(self.classes)))

    def prepare(self, task: Task) -> Prepared:
        """Every example of the task that fits, or is made to. DataError names one that may not be cut or dropped."""
        made = Prepared(records=len(task.examples))
        kept = dict.fromkeys(task.sizes, 0)
        files = [file for file, size in task.sizes.items() for _ in range(size)]
        for file, example in zip(files, task.examples, strict=True):
            laid = self._one(example, made)
            if laid is not None:
                laid.number = len(made.laid)
                made.laid.append(laid)
                made.examples.append(example)
                kept[file] += 1
        made.sizes = list(kept.values())
        told = say("finetune.counted", length=self.length, **{"lost": made.lost, **made.counts()})
        console.print(told, markup=False, soft_wrap=True)
        if not made.laid:
            raise DataError("finetune.none-fits", where=", ".join(map(str, task.files)), length=self.length)
        return made

    def _one(self, example: Example, made: Prepared) -> Laid | None:
        """An example's ids; None drops it."""
        if self.settings.manner == "t5":
            return self._written(example, made)
        if self.kind == "span":
            return self._span(example, made)
        pairs = [(example.text, choice) for choice in example.choices] if self.kind == "choice" else []
        pairs = pairs or [(example.text, example.pair)]
        if self.settings.manner == "gpt" and self.settings.both_orders and example.pair is not None:
            pairs = [(example.text, example.pair), (example.pair, example.text)]
        whole = [self._read(text, pair, None) for text, pair in pairs]
        longest = max(len(ids) for ids, _ in whole)
        if longest > self.length:
            if not self._may_cut(example, longest, made):
                return None
            whole = [self._read(text, pair, self.length) for text, pair in pairs]
        if not all(ids for ids, _ in whole):
            raise DataError("finetune.empty-text", place=example.place)
        rows, segments = [ids for ids, _ in whole], [numbers for _, numbers in whole]
        spoken = self.settings.manner == "gpt" and self.settings.lm_weight > 0
        return Laid(rows, segments, label=example.label, spoken=spoken)

    def _read(self, text: str, pair: str | None, longest: int | None) -> tuple[list[int], list[int]]:
        """The ids and segments of a text or a pair, of at most ``longest`` tokens."""
        if self.settings.manner == "bert":
            if pair is not None and self.spec.kind != "encoder" and not self._parted():
                raise ModelError("finetune.no-separator", model=self.settings.model)
            return self.tokenizer.around(text, pair, longest=longest)
        start, delim, extract = self.marks
        one, two = self.tokenizer.encode(text), [] if pair is None else self.tokenizer.encode(pair)
        if longest is not None:
            sizes = shorten(len(one), len(two), longest - (2 if pair is None else 3))
            one, two = one[: sizes[0]], two[: sizes[1]]
        ids = [start, *one, *([] if pair is None else [delim, *two]), extract]
        return ids, [0] * len(ids)

    def _parted(self) -> bool:
        """Whether the tokenizer puts a special token between two texts."""
        ids = self.tokenizer.around("a", "a")[0]
        own = [i for i, id in enumerate(ids) if id not in self.tokenizer.special]
        return any(id in self.tokenizer.special for id in ids[own[0] : own[-1]])

    def _may_cut(self, example: Example, tokens: int, made: Prepared) -> bool:
        """By the policy: True to cut, False to drop; both are counted. DataError under the policy "error"."""
        if self.settings.too_long == "error":
            raise DataError("finetune.too-long", place=example.place, tokens=tokens, length=self.length)
        cut = self.settings.too_long == "cut"
        made.cut += cut
        made.dropped += not cut
        return cut

    def _span(self, example: Example, made: Prepared) -> Laid | None:
        """A question and its passage; the label is (first, last) token of the answer, (0, 0) where there is none."""
        assert example.pair is not None
        ids, segments = self.tokenizer.around(example.text, example.pair)
        passage, characters = places(self.tokenizer, example.pair)
        first = _last_place(ids, passage)
        if len(ids) > self.length:
            if not self._may_cut(example, len(ids), made):
                return None
            kept = len(passage) - (len(ids) - self.length)
            if kept < 1:
                raise DataError("finetune.too-long", place=example.place, tokens=len(ids), length=self.length)
            ids = ids[: first + kept] + ids[first + len(passage) :]
            segments = segments[: first + kept] + segments[first + len(passage) :]
            characters = characters[:kept]
        label = (0, 0)
        if example.start is not None:
            end = example.start + len(example.answers[0])
            inside = [i for i, (a, b) in enumerate(characters) if a < end and b > example.start]
            whole = inside and characters[inside[-1]][1] >= end
            made.lost += not whole
            label = (first + inside[0], first + inside[-1]) if whole else (0, 0)
        made.passages.append(Passage(first, characters, example.pair))
        return Laid([ids], [segments], label=label)

    def _written(self, example: Example, made: Prepared) -> Laid | None:
        """A prompt and what is to be written after it, or after an encoder read it."""
        prompt, answer = self.prompt(example), self.tokenizer.encode(self.answer(example))
        answer = [*answer, *([] if self.tokenizer.end is None else [self.tokenizer.end])]
        apart = self.spec.kind == "encoder-decoder"
        ids = self.tokenizer.around(prompt)[0] if apart else self.tokenizer.prompt(prompt)
        size = max(len(ids), len(answer)) if apart else len(ids) + len(answer) - 1
        if not ids:
            raise DataError("finetune.empty-text", place=example.place)
        if size > self.length:
            if len(answer) > self.length or (not apart and len(answer) > self.length - 1):
                raise DataError("finetune.too-long", place=example.place, tokens=size, length=self.length)
            if not self._may_cut(example, size, made):
                return None
            # a decoder's prompt loses its beginning, so that what it ends in still asks
            ids = self.tokenizer.around(prompt, longest=self.length)[0] if apart else ids[size - self.length :]
        return Laid([ids], [[0] * len(ids)], written=answer)

    def prompt(self, example: Example) -> str:
        """What is read: the record's prompt, or its columns in the settings' ``input``."""
        if self.settings.input is None:
            return example.text if example.pair is None else f"{example.text} {example.pair}"
        try:
            return self.settings.input.format_map(example.columns)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            seen = ", ".join(example.columns)
            raise ConfigError("finetune.bad-input", input=self.settings.input, reason=error, seen=seen) from None

    def answer(self, example: Example) -> str:
        """What is to be written: a class by its name, a number to the nearest 0.2, or the record's completion."""
        if self.kind == "classification":
            return self.names[example.label]
        return f"{round(example.label * 5) / 5:.1f}" if self.kind == "regression" else example.completion

    def understood(self, text: str) -> int | float | str:
        """What a written answer means: a class (-1 for a text that is no label), a number (-1 likewise), the text."""
        text = text.strip()
        if self.kind == "classification":
            return self.names.index(text) if text in self.names else -1
        if self.kind == "regression":
            try:
                return float(text)
            except ValueError:
                return -1.0
        return text


def _last_place(ids: Sequence[int], part: Sequence[int]) -> int:
    """Where ``part`` stands last in ``ids``."""
    for first in range(len(ids) - len(part), -1, -1):
        if list(ids[first : first + len(part)]) == list(part):
            return first
    raise AssertionError("the passage is not in its own row")
