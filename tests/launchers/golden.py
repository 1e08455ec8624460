"""Emitted files against the ones that are kept in ``tests/golden``."""

import os
from pathlib import Path

from autopar.launchers.plan import Emission

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def compare(name: str, emission: Emission) -> None:
    """Every file of the emission is as kept under ``NAME/``; UPDATE_GOLDEN=1 keeps it anew."""
    for file, text in emission.files.items():
        path = GOLDEN / name / file
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run with UPDATE_GOLDEN=1"
        assert text == path.read_text(encoding="utf-8"), f"{path} differs"
