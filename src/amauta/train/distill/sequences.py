"""Texts that the teacher writes, as records to train the student on (Kim and Rush 2016, arXiv 1606.07947, section 3.2).

They are kept in the run's folder, a part as soon as it is whole: a run that was interrupted goes on with those that are
there. The student reads them with its own tokenizer, so it may have another vocabulary than the teacher.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.read import expand
from amauta.hub import Found
from amauta.metrics import progress
from amauta.models.exchange.opening import weight_files
from amauta.models.transformer import Transformer
from amauta.runs import Run, digest, write_atomically
from amauta.tokenize.either import AnyTokenizer
from amauta.train.distill.openings import Opening, write
from amauta.train.distill.settings import Distill

PART = 256  # texts


def written(
    run: Run,
    settings: Distill,
    found: Found,
    teacher: Transformer,
    tokenizer: AnyTokenizer,
    given: Sequence[Opening],
) -> list[Path]:
    """The files of what the teacher writes, one text after each opening; those that are there are not written anew.

    The seed of part p is that of the run and p, so that the texts do not depend on where the run was interrupted.
    """
    key = key_of(settings, found)
    files: list[Path] = []
    with progress(say("distill.writing"), len(given)) as bar:
        for part, start in enumerate(range(0, len(given), PART)):
            some, file = given[start : start + PART], run.written(key, part)
            if not file.exists():
                texts: list[str] = []
                for at in range(0, len(some), settings.writing.running):
                    group = some[at : at + settings.writing.running]
                    seed = derive(settings.loop.seed, "written", start + at) % 2**31
                    texts += [one.text for one in write(teacher, tokenizer, group, settings.writing, seed)]
                    bar.advance(len(group))
                rows = (one.record(text) for one, text in zip(some, texts, strict=True))
                write_atomically(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            else:
                bar.advance(len(some))
            files.append(file)
    return files


def key_of(settings: Distill, found: Found) -> str:
    """Tells what a teacher was asked: its weights and the texts by content, and how it writes."""
    content = [digest(file) for file in [*weight_files(found), *expand(settings.data or settings.text)]]
    asked = [content, asdict(settings.writing), settings.length, settings.loop.seed]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
