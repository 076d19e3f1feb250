"""Adapters on a model: attach, count, switch, merge, take off; files in ``folder.py``."""

from amauta.models.adapters.attach import added, attach, attached, detach, put_added, switch
from amauta.models.adapters.counts import counts
from amauta.models.adapters.merging import as_plain, merge, merged, unmerge
from amauta.models.adapters.tokens import add_tokens

__all__ = [
    "add_tokens", "added", "as_plain", "attach", "attached", "counts", "detach", "merge", "merged", "put_added",
    "switch", "unmerge",
]  # fmt: skip
