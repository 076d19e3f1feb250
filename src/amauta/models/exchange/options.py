"""Options of another library's config: compute them or refuse them."""

from collections.abc import Mapping
from typing import Any

from amauta.base.errors import ModelError


def refuse(config: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """ModelError when an option has a value that we do not compute; an option that is absent is fine."""
    for name, values in allowed.items():
        if name in config and config[name] not in values:
            shown = ", ".join(map(str, values))
            raise ModelError("exchange.unsupported-option", name=name, value=config[name], allowed=shown)
