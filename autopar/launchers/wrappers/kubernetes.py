"""What the Kubernetes kinds have in common."""

from collections.abc import Mapping
from typing import Any

import yaml

from autopar.launchers.knobs import comments
from autopar.launchers.plan import Emission, Plan

IMAGE = "nvcr.io/nvidia/pytorch:26.07-py3"
"""A container to begin with; it must hold the launcher."""
SHARED_MEMORY = "64Gi"


class _Dumper(yaml.SafeDumper):
    """Scripts as blocks, so that people can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def document(emission: Emission, plan: Plan, values: Mapping[str, Any]) -> str:
    """YAML with a line on top that says what it runs."""
    title = f"{plan.strategy.world_size} GPUs: {emission.targets}. The image must hold it."
    body = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, width=10_000)
    return f"{comments([title])[0]}\n{body}"


def gpu_resource(plan: Plan) -> str:
    """Name of the GPU in a container's limits."""
    return "amd.com/gpu" if plan.cluster.gpu.vendor.lower() == "amd" else "nvidia.com/gpu"
