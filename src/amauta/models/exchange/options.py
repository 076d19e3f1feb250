"""What another library's config asks for: compute it or refuse it."""

from collections.abc import Collection, Mapping
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.spec import Output


def refuse(config: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """ModelError when an option has a value that we do not compute; an option that is absent is fine."""
    for name, values in allowed.items():
        if name in config and config[name] not in values:
            shown = ", ".join(map(str, values))
            raise ModelError("exchange.unsupported-option", name=name, value=config[name], allowed=shown)


def outputs_of(
    config: Mapping[str, Any],
    names: Collection[str],
    architectures: Mapping[str, tuple[Output, ...]],
    marks: Mapping[str, Output],
) -> tuple[Output, ...]:
    """The outputs of a folder, its own first.

    ``architectures``: what each ending of ``config["architectures"][0]`` computes ("ForMaskedLM": ("masked",), "Model":
    ()). ``marks``: tensor names that show an output: one that the file's tensors (``names``) show is there even when
    the architecture does not say so. Without ``architectures`` in the config the marks decide alone, and then the
    family's first. ModelError for an architecture with a head that we do not have.
    """
    declared = config.get("architectures") or []
    said: tuple[Output, ...] | None = None
    if declared:
        ending = next((end for end in sorted(architectures, key=len, reverse=True) if declared[0].endswith(end)), None)
        if ending is None:
            known = ", ".join(f"…{end}" for end in architectures)
            raise ModelError("exchange.unsupported-option", name="architectures", value=declared[0], allowed=known)
        said = architectures[ending]
    if not names:
        return next(iter(architectures.values())) if said is None else said
    seen = {output for mark, output in marks.items() if mark in names}
    if said is None:
        return tuple(dict.fromkeys(marks[mark] for mark in marks if mark in names)) or next(
            iter(architectures.values())
        )
    return tuple(dict.fromkeys([*said, *(output for output in marks.values() if output in seen)]))
