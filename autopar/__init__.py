"""How to lay out a large model on a cluster: search, estimate, emit.

>>> import autopar
>>> result = autopar.search("8b", gpus=8)
>>> result.certificate.complete
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autopar.shadow import refuse_shadowed_packages

if TYPE_CHECKING:
    from autopar.api import (
        Cluster,
        Job,
        ModelSpec,
        Priced,
        SearchResult,
        SpecError,
        Strategy,
        Workload,
        estimate,
        explain,
        search,
        search_study,
        simulate,
        validate,
        work,
    )

refuse_shadowed_packages()

__all__ = [
    "Cluster",
    "Job",
    "ModelSpec",
    "Priced",
    "SearchResult",
    "SpecError",
    "Strategy",
    "Workload",
    "estimate",
    "explain",
    "search",
    "search_study",
    "simulate",
    "validate",
    "work",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: ``import autopar`` stays quick."""
    if name not in __all__:
        raise AttributeError(f"module 'autopar' has no attribute {name!r}")
    return getattr(import_module("autopar.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
