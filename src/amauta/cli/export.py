"""Write a model as a GGUF file or as a folder that other libraries open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from amauta.cli._door import command
from amauta.hub.known import ANY_MODEL


@dataclass
class Export:
    """Write a model as a GGUF file or as a folder."""

    model: Annotated[str, Doc(ANY_MODEL)]
    gguf: Annotated[Path | None, Doc("write a GGUF file here")] = None
    folder: Annotated[Path | None, Doc("write a folder of Hugging Face's layout here")] = None
    type: Annotated[
        Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None, Doc("of the numbers in a GGUF file; q8_0 when left out")
    ] = None
    dtype: Annotated[
        Literal["f32", "bf16", "f16"] | None,
        Doc("of the numbers in a folder; left out: as a folder holds them, f32 from a file"),
    ] = None
    force: Annotated[bool, Doc("replace what an earlier export wrote there")] = False


@command(Export)
def export(settings: Export) -> dict[str, Any]:
    """Write a model as a GGUF file (for llama.cpp and its kin) or as a folder (for transformers and others).

    Exactly one of --gguf and --folder is given. What was written is read back and compared with the model on four
    short texts before it takes its place: kl is the mean difference of what they expect next (nats a token),
    largest_difference that of a single log-prob, top1_agreement the share of places with the same best token. Beyond
    the tolerance nothing is left there, and the exit code is 2.

    Examples:
      amauta export --model runs/demo --gguf demo.gguf --type q8_0
      amauta export --model smollm2 --folder smollm2-hf --dtype bf16
      amauta export --model model.gguf --folder model-hf --force --json
    """
    from amauta.base.errors import ConfigError

    out = settings.gguf or settings.folder
    if out is None or (settings.gguf is not None and settings.folder is not None):
        raise ConfigError("export.one-of-two")
    if settings.dtype is not None and settings.folder is None:
        raise ConfigError("export.not-of-this", flag="--dtype", form="--folder", instead="--type")
    if settings.type is not None and settings.gguf is None:
        raise ConfigError("export.not-of-this", flag="--type", form="--gguf", instead="--dtype")
    if out.exists() and not settings.force:
        raise ConfigError("export.exists", path=out)
    if settings.gguf is not None and out.is_dir():
        raise ConfigError("export.a-folder", path=out)
    from amauta.hub import find_model

    found = find_model(settings.model)
    _check_apart(found.path, out)
    if settings.folder is not None:
        from amauta.models.exchange.export import export_folder

        return {"model": found.name, "source": found.source, **export_folder(found, out, dtype=settings.dtype)}
    from amauta.models.exchange.gguf.write import write
    from amauta.models.exchange.opening import open_model

    figures = write(*open_model(found), out, type=settings.type or "q8_0")
    return {"model": found.name, "source": found.source, **figures}


def _check_apart(source: Path, out: Path) -> None:
    """ConfigError where writing would replace what is being read."""
    from amauta.base.errors import ConfigError

    source, out = source.resolve(), out.resolve()
    if out == source or out in source.parents:
        raise ConfigError("export.onto-itself", path=out)
