"""Cells of a CSV of measured runs: read, typed, and blamed by their column.

A blank cell means that the source does not say.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cost_models.specs.errors import SpecError

COLUMNS = (
    "source", "source_ref", "row_id", "gpu", "num_gpus", "gpus_per_node", "intra_bw_note",
    "inter_bw_note", "model", "n_layers", "hidden", "ffn_hidden", "n_heads", "n_kv_heads",
    "head_dim", "vocab", "n_experts", "topk", "moe_ffn_hidden", "n_shared_experts", "gated_mlp",
    "tied_embeddings", "seq_len", "global_batch_seqs", "micro_batch", "dp", "tp", "pp", "vpp",
    "schedule", "cp", "ep", "etp", "seq_parallel", "sharding", "recompute", "precision",
    "framework", "flash_attention", "step_time_s", "tokens_per_s_per_gpu",
    "tflops_per_gpu_reported", "tflops_convention", "mfu_reported", "peak_mem_GiB", "oom", "notes",
    "nic_gbit_per_s_per_gpu", "nvlink_gbyte_per_s", "framework_release", "layer_partition",
    "mtp_layers", "frozen_weights", "balanced_experts", "drops_tokens", "scores_counted",
    "slow_regime",
)  # fmt: skip
"""The public schema, explained in ``benchmarks/data/README.md``; further columns are ignored."""

REQUIRED = ("gpu", "num_gpus", "seq_len", "global_batch_seqs", "dp", "tp", "pp")


class RunError(SpecError):
    """A row that cannot be priced, and the column to blame."""

    def __init__(self, column: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{column}: {message}", hint=hint)
        self.column = column


class UnknowableRunError(RunError):
    """The row cannot be priced because its source leaves out what must be known."""


class UnreadableRunError(RunError):
    """The row contradicts itself or has a cell that is not what its column holds."""


NumberedRows = list[tuple[int, dict[str, str]]]
"""(line, cells by column) of every row."""

SURPLUS = ""
"""Column of the cells that no column of the header stands above."""


def read_table(path: Path) -> tuple[list[str], NumberedRows]:
    """Header and rows of a CSV.

    Raises
    ------
    SpecError
        When the file cannot be read, or required columns are missing or repeated.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise SpecError(f"{path}: cannot read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: not a CSV file: {error}") from None
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise SpecError(f"{path}:1: column {repeated[0]!r} stands there twice")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise SpecError(
            f"{path}:1: missing column {missing[0]!r}", hint=f"needed: {', '.join(REQUIRED)}"
        )
    return header, [(line, _by_column(header, row)) for line, row in rows]


def _by_column(header: list[str], row: list[str]) -> dict[str, str]:
    cells = dict(zip(header, row, strict=False))
    if len(row) > len(header):
        cells[SURPLUS] = ",".join(row[len(header) :])
    return cells


Word = TypeVar("Word", bound=str)


class Cells:
    """Typed access to one row's cells; errors name the column."""

    def __init__(self, cells: dict[str, str]) -> None:
        self._cells = cells

    def text(self, name: str) -> str:
        """The cell without blanks around it; empty where the column is missing."""
        return (self._cells.get(name) or "").strip()

    def number(self, name: str) -> float | None:
        """A finite number >= 0, or None."""
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise UnreadableRunError(name, f"{text!r} is not a number") from None
        if not 0 <= value < float("inf"):
            raise UnreadableRunError(name, f"must be a finite number >= 0, got {text}")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number >= 0, or None."""
        value = self.number(name)
        if value is not None and value != int(value):
            raise UnreadableRunError(name, f"must be a whole number, got {self.text(name)}")
        return None if value is None else int(value)

    def positive(self, name: str) -> int:
        """A whole number >= 1 that must be stated."""
        value = self.whole(name)
        if value is None:
            raise UnknowableRunError(name, "is not stated")
        if value < 1:
            raise UnreadableRunError(name, f"must be >= 1, got {value}")
        return value

    def choice(self, name: str, known: Sequence[Word]) -> Word | None:
        """One of ``known``, or None."""
        text = self.text(name)
        found = next((word for word in known if word == text), None)
        if text and found is None:
            raise UnreadableRunError(
                name, f"is unknown: {text!r}", hint=f"known: {', '.join(known)}"
            )
        return found

    def flag(self, name: str, default: bool) -> bool:
        """0 or 1, or the default."""
        text = self.text(name).lower()
        if text not in ("", "0", "1", "true", "false"):
            raise UnreadableRunError(name, f"must be 0 or 1, got {text!r}")
        return default if not text else text in ("1", "true")


@contextmanager
def blaming(column: str) -> Iterator[None]:
    """Turn what a catalog or a spec refuses into the row's error, under its column."""
    try:
        yield
    except RunError:
        raise
    except SpecError as error:
        field = re.match(r"(?:model|strategy|cluster)\.(\w+)", str(error))
        name = FIELD_COLUMNS.get(field[1], field[1]) if field else column
        raise UnreadableRunError(
            name if name in COLUMNS else column, str(error), hint=error.hint
        ) from None


FIELD_COLUMNS = {
    "hidden_size": "hidden",
    "ffn_size": "ffn_hidden",
    "vocab_size": "vocab",
    "top_k": "topk",
    "moe_ffn_size": "moe_ffn_hidden",
    "moe_layers": "n_experts",
    "shared_expert_ffn_size": "n_shared_experts",
    "micro_batch_size": "micro_batch",
    "nic_bandwidth_Bps": "nic_gbit_per_s_per_gpu",
    "nvlink_bandwidth_Bps": "nvlink_gbyte_per_s",
    "sequence_parallel": "seq_parallel",
}
"""Columns of the fields that are called otherwise."""
