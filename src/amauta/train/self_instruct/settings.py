"""The settings of ``amauta self-instruct``; no torch here, so that its help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL


@dataclass(frozen=True)
class SelfInstruct:
    """New tasks from seed tasks. Defaults are those that were published, but for the size of the work."""

    model: Annotated[str, Doc(f"who writes: {ANY_MODEL}; with --url its name at the server")]
    seeds: Annotated[tuple[str, ...], Doc("tasks by people: instruction with instances, or Alpaca records")]
    out: Annotated[Path, Doc("folder of the run")]
    url: Annotated[str | None, Doc("an OpenAI-compatible server, http://localhost:8000/v1")] = None
    key: Annotated[str, Doc("the environment variable with the server's key")] = "OPENAI_API_KEY"
    count: Annotated[int, Gt(0), Doc("instructions to make")] = 100
    patience: Annotated[int, Gt(0), Doc("stop after so many requests in a row that gave no new instruction")] = 40
    language: Annotated[Literal["en", "es"], Doc("the language of the requests")] = "en"
    layout: Annotated[
        Literal["auto", "chat", "plain"], Doc("as a turn of a dialogue or as plain text; auto: chat where there is one")
    ] = "auto"
    human: Annotated[int, Gt(0), Doc("seed instructions in a request")] = 6
    machine: Annotated[int, Ge(0), Doc("instructions of its own in a request; seeds stand in until there are any")] = 2
    similarity: Annotated[
        float, Gt(0), Le(1), Doc("an instruction is kept while its ROUGE-L with every other is below this")
    ] = 0.7
    least_words: Annotated[int, Gt(0), Doc("words of an instruction, at least")] = 4
    most_words: Annotated[int, Gt(0), Doc("words of an instruction, at most")] = 150
    instances: Annotated[int, Gt(0), Doc("instances of a task, at most")] = 5
    with_seeds: Annotated[bool, Doc("the seed tasks are written out with the new ones")] = True
    batch: Annotated[int, Gt(0), Doc("requests at a time")] = 5
    temperature: Annotated[float, Ge(0), Doc("of new instructions; what follows is greedy")] = 0.7
    top_p: Annotated[float, Gt(0), Le(1), Doc("of new instructions")] = 0.5
    presence_penalty: Annotated[float, Doc("of new instructions")] = 2.0
    instruction_tokens: Annotated[int, Gt(0), Doc("tokens of an answer with new instructions, at most")] = 1024
    instance_tokens: Annotated[int, Gt(0), Doc("tokens of an answer with instances, at most")] = 300
    may_skip: Annotated[int, Ge(0), Doc("malformed seeds that may be skipped (counted)")] = 0
    seed: Annotated[int, Ge(0), Doc("the seed of everything random")] = 7
    device: Annotated[DeviceName, Doc("where a model here computes")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"
    resume: Annotated[bool, Doc("go on where an earlier run in this folder stopped")] = False
