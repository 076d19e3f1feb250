"""The continuations of one prompt with the tree of all that was looked at on the way (``decode.tree``)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ConfigError
from amauta.decode.search.request import Hypothesis
from amauta.decode.tree.recording import BeamRecorder, SampleRecorder
from amauta.decode.tree.tree import Tree

if TYPE_CHECKING:
    from amauta.language_model.answer import Generation
    from amauta.language_model.model import LanguageModel


def recorded(
    owner: "LanguageModel",
    prompt: str | Sequence[int],
    samples: int = 1,
    *,
    on_result: Callable[["Generation"], object] | None = None,
    **settings: Any,
) -> tuple[list["Generation"], Tree]:
    """``samples`` continuations of ``prompt``, as ``generate`` gives them for so many equal prompts, and their tree.

    ConfigError for several samples of a search.
    """
    asked = owner.asked(**settings)
    if asked.search.on and samples > 1:
        raise ConfigError("language_model.one-search", samples=samples)
    read = owner.read(prompt)
    method = "sample" if asked.sampling.temperature else "greedy"
    if asked.search.on:
        method = "beam" if asked.search.beams > 1 else "contrastive"
    tree = Tree(
        method, prompt if isinstance(prompt, str) else "", asked.record(asked.sampling), sources=asked.sources,
        ids=read.ids, model=owner.name, **({} if read.source is None else {"source": read.source}),
    )  # fmt: skip

    def piece(id: int) -> str:
        return owner.tokenizer.pieces([id])[0] if id < owner.tokenizer.size else str(id)

    names = (owner.token_bytes, piece) if owner.has_tokenizer else (None, None)
    if asked.search.on:
        beams = BeamRecorder(tree, *names)
        made = owner.generate([prompt], watch=beams, on_result=on_result, **settings)
        one = made[0]
        best = {"ids": one.tokens, "logprobs": one.logprobs, "score": one.score, "finish": one.finish}
        beams.end([Hypothesis(**found) for found in one.beams or [best]])
        return made, tree
    choices = SampleRecorder(tree, *names)
    made = owner.generate([prompt] * samples, watch=choices, on_result=on_result, **settings)
    choices.end({row: one.finish for row, one in enumerate(made)})
    return made, tree
