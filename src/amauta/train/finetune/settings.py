"""The settings of ``amauta finetune``; no torch here, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from amauta.adapt.settings import Adapters
from amauta.data.tasks import Columns, Kind
from amauta.hub.known import ANY_MODEL
from amauta.optim.settings import Optim
from amauta.train.freeze import TrainOnly
from amauta.train.settings import Loop, TooLong

Way = Literal["bert", "gpt", "t5"]
WAY = "bert: a classifier on one state; gpt: on [EXTRACT], with a language-model loss; t5: the answer is written"
TASK = (
    "records to learn: text/label, text/text_pair/label, question/context/answers, prompt/completion; files are mixed"
)
LENGTH = "longest input in tokens; the model's context, at most 512, when left out"
TOO_LONG = "inputs longer than that: cut the longer of a pair first, drop the record, or stop; always counted"
INPUT = 't5: how columns become a prompt, as "mrpc sentence1: {text} sentence2: {text_pair}"; the texts when left out'
DROPOUT = "dropout before the classifier; the model's own when left out, 0.1 in GPT's manner"
NO_ANSWER = "spans: say nothing where no answer scores so much above the best span; 0 where the task has such questions"
SEE_PROMPT = "t5, classes by a decoder: the tokens of the prompt see each other in both directions, as in a prefix LM"
RANK = "t5, classes: the likeliest name is the answer, not what is written (always so with --see-prompt)"
TRAIN_ONLY = "what is trained beside a new output: all, the embeddings (to adapt to a language), or that alone"
TEMPLATES = "t5: prompt templates (PromptSource's YAML), one file for each of --task or one for all"
LEAKS = "held-out records that are learnt too, whole or by a run of 13 words: count them, or stop"
MEASURES = "accuracy f1 matthews pearson spearman exact_match token_f1; the usual ones of the kind when left out"

# What was published: Devlin et al. 2019 (arXiv 1810.04805, A.3), Radford et al. 2018 (section 4.1). T5 was fine-tuned
# with Adafactor at a constant 1e-3 (Raffel et al. 2020, 3.1.2), which for AdamW is too much: 3e-4 is in use for it.
PUBLISHED: dict[str, dict[str, Any]] = {
    "bert": {"optim": {"lr": 3e-5, "warmup": 0.1, "schedule": "linear", "weight_decay": 0.01}},
    "gpt": {"optim": {"lr": 6.25e-5, "warmup": 0.002, "schedule": "linear", "weight_decay": 0.01}},
    "t5": {"optim": {"lr": 3e-4, "warmup": 0.0, "schedule": "constant", "weight_decay": 0.0}},
}

ADAPTED = 10  # how much higher the rate of an adapter is (Hu et al. 2021, arXiv 2106.09685, appendix D)


@dataclass(frozen=True)
class Finetune:
    """Training a pretrained model on the records of a task."""

    model: Annotated[str, Doc(f"the model to start from: {ANY_MODEL}")]
    task: Annotated[tuple[str, ...], Doc(TASK)]
    out: Annotated[Path, Doc("folder of the run; with several seeds it holds one run each")] = Path("finetuned")
    heldout: Annotated[tuple[str, ...], Doc("records that are only answered and graded")] = ()
    manner: Annotated[Way, Doc(WAY)] = "bert"
    kind: Annotated[Kind | None, Doc("what a label is; left out: found from the first record")] = None
    columns: Columns = field(default_factory=Columns)
    labels: Annotated[tuple[str, ...], Doc("the classes' names in order; left out: those in the task")] = ()
    length: Annotated[int | None, Doc(LENGTH)] = None
    too_long: Annotated[TooLong, Doc(TOO_LONG)] = "cut"
    input: Annotated[str | None, Doc(INPUT)] = None
    classifier_dropout: Annotated[float | None, Doc(DROPOUT)] = None
    lm_weight: Annotated[float, Ge(0), Doc("gpt: weight of the language-model loss on the same texts")] = 0.5
    both_orders: Annotated[bool, Doc("gpt: read a pair in both orders and add the two states, for similarity")] = False
    answer_tokens: Annotated[int, Gt(0), Doc("longest answer, a span's or a written one's")] = 30
    no_answer: Annotated[float | None, Doc(NO_ANSWER)] = None
    see_prompt: Annotated[bool, Doc(SEE_PROMPT)] = False
    rank: Annotated[bool, Doc(RANK)] = False
    train_only: Annotated[TrainOnly, Doc(TRAIN_ONLY)] = "all"
    measures: Annotated[tuple[str, ...], Doc(MEASURES)] = ()
    templates: Annotated[tuple[Path, ...], Doc(TEMPLATES)] = ()
    heldout_templates: Annotated[tuple[Path, ...], Doc("the same for --heldout: of tasks that are not learnt")] = ()
    leaks: Annotated[Literal["count", "error"], Doc(LEAKS)] = "count"
    cap: Annotated[int | None, Doc("at most so many examples of a file an epoch, drawn anew each time")] = None
    seeds: Annotated[int, Gt(0), Doc("runs, with seeds counted up from --seed; mean and deviation are reported")] = 1
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=lambda: Loop(rows=32, epochs=3.0, compile=False))
    optim: Optim = field(
        default_factory=lambda: Optim(
            optimizer="adamw", lr=3e-5, beta2=0.999, schedule="linear", warmup=0.1, weight_decay=0.01
        )
    )

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """The rates of the manner, below everything that was given; those of an adapter are ten times higher."""
        found = PUBLISHED.get(values.get("manner", "bert"), {})
        if not found or not values.get("adapters", {}).get("adapter"):
            return found
        return {"optim": found["optim"] | {"lr": ADAPTED * found["optim"]["lr"]}}
