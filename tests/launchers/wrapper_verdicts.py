"""Asks torchrun's parser, Kubernetes' models and SkyPilot about wrapped files.

One JSON object per line comes in (``kind`` and ``argv`` or ``text``) and one goes out:
``{"error": null}`` or what was refused.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def torchrun(case: dict[str, Any]) -> None:
    """The launch configuration that torchrun makes of its arguments is the one we meant."""
    run = importlib.import_module("torch.distributed.run")
    config, _, program = run.config_from_args(run.get_args_parser().parse_args(case["argv"]))
    got = [config.min_nodes, config.max_nodes, config.nproc_per_node]
    if got != [case["nodes"], case["nodes"], case["per_node"]]:
        raise ValueError(f"nodes and processes {got}")
    if case["program"] not in program:
        raise ValueError(f"program {program}")


def model(case: dict[str, Any]) -> None:
    """The document fits the published model, and the model keeps every field of it."""
    models = importlib.import_module("kubeflow_trainer_api.models")
    document = importlib.import_module("yaml").safe_load(case["text"])
    names = {"trainjob": "TrainerV1alpha1TrainJob", "jobset": "JobsetV1alpha2JobSet"}
    kept = getattr(models, names[case["kind"]]).from_dict(document).to_dict()
    lost = list(_lost(document, kept, ""))
    if lost:
        raise ValueError(f"unknown fields {lost}")
    if case["kind"] == "jobset":
        job = document["spec"]["replicatedJobs"][0]["template"]
        validate = importlib.import_module("kubernetes_validate").validate
        validate(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job},
            "1.31",
            strict=True,
        )


def _lost(written: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(written, dict):
        for key, value in written.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{path}/{key}"
            else:
                yield from _lost(value, kept[key], f"{path}/{key}")
    elif isinstance(written, list) and isinstance(kept, list):
        for index, (a, b) in enumerate(zip(written, kept, strict=False)):
            yield from _lost(a, b, f"{path}/{index}")


def skypilot(case: dict[str, Any]) -> None:
    """SkyPilot makes a task of it."""
    sky = importlib.import_module("sky")
    sky.Task.from_yaml_config(importlib.import_module("yaml").safe_load(case["text"]))


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    checks = {"torchrun": torchrun, "trainjob": model, "jobset": model, "skypilot": skypilot}
    for line in sys.stdin:
        case = json.loads(line)
        error = None
        try:
            checks[case["kind"]](case)
        except (Exception, SystemExit) as refused:
            error = f"{type(refused).__name__}: {refused}"
        out.write(json.dumps({"error": error}) + "\n")


if __name__ == "__main__":
    main()
