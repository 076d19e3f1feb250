"""The journal of a run: every request that was answered, with its answers.

Everything else is a function of these and of the seed, so a run that was killed goes on by reading them again, and
comes to what it would have come to; nothing that was answered is asked twice.
"""

import hashlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from amauta import metrics
from amauta.base.errors import RunError
from amauta.runs import Run
from amauta.train.self_instruct.wording import Request
from amauta.train.self_instruct.writers import Draw, Writer, Written

Take = Callable[[Sequence[Written]], dict[str, Any]]


class Asked:
    """Asks a writer, or finds what it answered before; ``step`` counts the calls."""

    def __init__(self, run: Run, write: Writer) -> None:
        self.folder, self.write, self.step = run.folder, write, 0
        self.kept = metrics.read(run.metrics) if run.metrics.exists() else []
        self.journal = metrics.Journal(run.metrics, from_step=len(self.kept) if self.kept else None)

    def __call__(self, stage: str, requests: Sequence[Request], draw: Draw, take: Take) -> None:
        """Hand the answers to ``take`` and write them down with the figures that it returns.

        RunError where the journal holds answers to other requests: the seeds, the model or the code have changed.
        """
        self.step += 1
        key = hashlib.blake2b(repr((stage, list(requests), draw)).encode(), digest_size=8).hexdigest()
        if self.step <= len(self.kept):
            row = self.kept[self.step - 1]
            if row["asked"] != key:
                raise RunError("self_instruct.other-course", folder=self.folder, step=self.step)
            take([Written(one["text"], one["whole"]) for one in row["answers"]])
            return
        answers = self.write(requests, draw)
        figures = take(answers)
        held = [{"text": one.text, "whole": one.whole} for one in answers]
        self.journal.log(self.step, stage=stage, asked=key, **figures, answers=held)

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.journal.close()
