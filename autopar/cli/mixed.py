"""``autopar search`` where the cluster file lists several pools."""

from collections.abc import Mapping
from typing import Any

import click

from autopar.answers.mixed import as_pools, search_mixed
from autopar.cli.group import NOTHING_FITS, complain
from autopar.cli.question import words_of
from autopar.report.files import STDOUT, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.mixed import mixed_document, print_mixed
from cost_models.specs.cluster import Cluster

_ONE_CLUSTER_ONLY = {
    "gpus": "the file says how many GPUs each pool has",
    "gpu": "the file says which GPUs each pool has",
    "objective": "a mixed cluster is searched for memory and step time",
    "csv_path": "rows of several pools are written with --json",
    "reserve_gib": "write reserved_gib into the pools",
}


def pools_of(options: Mapping[str, Any]) -> tuple[Cluster, ...]:
    """The pools of the cluster file where there are several kinds of them, else none."""
    named = options["cluster"]
    if named is None or not _is_file_of_pools(str(named)):
        return ()
    pools = as_pools(named)
    return pools if len(pools) > 1 else ()


def _is_file_of_pools(named: str) -> bool:
    from cost_models.catalog.cluster_files import read_pools
    from cost_models.catalog.gpus import cluster_path

    path = cluster_path(named)
    return path is not None and len(read_pools(path)) > 1


def search_several(options: Mapping[str, Any], pools: tuple[Cluster, ...]) -> int:
    """Search, print, write; returns the exit code."""
    for name, why in _ONE_CLUSTER_ONLY.items():
        if options.get(name) is not None:
            option = name.removesuffix("_path").replace("_", "-")
            raise click.UsageError(f"--{option} and a cluster of several pools: {why}")
    result = search_mixed(options["model"], pools, **words_of(options))
    path = options["json_path"]
    if path is not None:
        write_text("--json", path, json_text(mixed_document(result)))
    if not result.frontier:
        return complain("no strategy is legal and fits on these pools", code=NOTHING_FITS)
    if path != STDOUT:
        print_mixed(Printer(), result, top=options["top"])
    if path not in (None, STDOUT):
        narrate(f"wrote {path}")
    return 0
