"""The public documents: ``autopar/search/1``, ``autopar/estimate/1`` and kin; rows as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autopar.answers.schemas import EMIT_SCHEMA, ESTIMATE_SCHEMA, SEARCH_SCHEMA
from autopar.job.job import Job
from autopar.launchers.plan import Emission, Plan
from autopar.report.views.catalog import cluster_document, model_document
from cost_models.specs.workload import Workload
from search.result import Priced, SearchResult
from search.rules import Problem
from search.versions import versions


def search_document(
    result: SearchResult, said: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """What a search found, for programs, below what was said and what is to be known of it."""
    document = {
        "schema": SEARCH_SCHEMA,
        **specs_document(result),
        "launcher": result.launcher,
        "said": dict(said),
        "notes": list(notes),
        "seed": result.seed,
        "versions": result.versions,
        "counts": asdict(result.counts),
        "certificate": asdict(result.certificate),
        "frontier": [row_document(row, rank) for rank, row in enumerate(result.frontier, start=1)],
    }
    if result.explanation is not None:
        document["explanation"] = result.explanation
    return document


def estimate_document(
    job: Job, problem: Problem, row: Priced, totals: Mapping[str, float], broken: Sequence[str]
) -> dict[str, Any]:
    """One strategy's row with its problem, and the memory of the whole job."""
    return {
        "schema": ESTIMATE_SCHEMA,
        **specs_document(problem),
        "launcher": job.launcher or problem.launcher.name,
        **job_document(job),
        "versions": versions(),
        **row_document(row, 1),
        "legal": not broken,
        "broken_rules": list(broken),
        "fits": row.memory_bytes <= problem.cluster.usable_memory_bytes,
        "job_memory_bytes": dict(totals),
    }


def emit_document(
    emission: Emission, plan: Plan, *, rank: int, wrapper: str | None, out: str
) -> dict[str, Any]:
    """Which files were written for which strategy, and what they leave unsaid."""
    predicted = {} if plan.prediction is None else asdict(plan.prediction)
    return {
        "schema": EMIT_SCHEMA,
        "launcher": emission.launcher,
        "targets": emission.targets,
        "wrapper": wrapper,
        "out": out,
        "files": list(emission.files),
        "not_expressed": list(emission.not_expressed),
        "warnings": list(emission.warnings),
        "model": plan.model.name,
        "rank": rank,
        "strategy": plan.strategy.to_json(),
        **{name: value for name, value in predicted.items() if value is not None},
    }


def job_document(job: Job) -> dict[str, Any]:
    """What was said, and what is to be known of it."""
    return {"said": dict(job.said), "notes": list(job.notes)}


def specs_document(of: Problem | SearchResult) -> dict[str, Any]:
    """What is trained, on what, and how: the specs whole."""
    return {
        "model": model_document(of.model),
        "cluster": cluster_document(of.cluster),
        "workload": workload_document(of.workload),
    }


def row_document(row: Priced, rank: int) -> dict[str, Any]:
    """One row of a frontier under its rank."""
    return {"rank": rank, **row.to_json()}


def workload_document(workload: Workload) -> dict[str, Any]:
    """What one step trains."""
    return asdict(workload) | {"tokens_per_step": workload.tokens_per_step}


def rows_csv(rows: Sequence[Priced]) -> str:
    """Rows under one head, nested values spread over dotted columns."""
    documents = [_flat(row_document(row, rank)) for rank, row in enumerate(rows, start=1)]
    heads = list(dict.fromkeys(name for document in documents for name in document))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads or ["rank"], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(documents)
    return text.getvalue()


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[prefix + name] = " ".join(map(str, value))
        else:
            flat[prefix + name] = value
    return flat
