"""The settings of ``amauta prompt rewards``. Without torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from amauta.decode.settings import Asked
from amauta.prompt.settings import Ask, Layout, Prompting
from amauta.prompt.thoughts.settings import ProcessRewards


@dataclass(frozen=True)
class PromptRewards(ProcessRewards, Ask):
    """Measure the steps of a model's solutions, and write them as process rewards."""

    out: Annotated[Path, Doc("write the records here, one JSON object a line; the same call goes on")] = Path(
        "steps.jsonl"
    )
    layout: Annotated[Layout, Doc("as turns of a dialogue or as plain text; auto: chat where the model can")] = "auto"
    sampling: Annotated[Asked, Doc("how tokens are drawn")] = field(default_factory=Asked)

    @property
    def prompting(self) -> Prompting:
        """How solutions are asked for."""
        return Prompting(layout=self.layout, sampling=self.sampling)

    @property
    def rewards(self) -> ProcessRewards:
        """What changes the rewards, and nothing else: more examples may be measured into the same file."""
        return ProcessRewards(**{each.name: getattr(self, each.name) for each in fields(ProcessRewards)})
