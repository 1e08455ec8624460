"""Unpacks the launchers that pip would not install, for the tests marked ``launchers``.

    pip install -e '.[launchers]' && python tests/launchers/unpack.py [FOLDER]

The extra holds every launcher that pip can resolve beside the others.  Three cannot be:
Megatron-Bridge asks for kernels that build on a GPU machine only, and it, megatron-core
and MaxText for Python 3.12, though their readers of configurations run anywhere.  Their
wheels (7 MB) go to ``FOLDER/wheels`` without what they depend on.

FOLDER is ``.launchers`` beside pyproject.toml, or ``$AUTOPAR_LAUNCHERS``.  If it is a
virtual environment too, the tests ask its Python, and else the one that runs them.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

UNPACKED = {
    "megatron_core": "megatron-core==0.19.2",
    "megatron_bridge": "megatron-bridge==0.6.2",
    "maxtext": "maxtext==0.2.5",
}
"""What to download by the folder it is unpacked to."""
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
_ANYWHERE = ("--no-deps", "--python-version", "3.12", "--only-binary=:all:")


def folder() -> Path:
    """Where the wheels are, or will be."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("AUTOPAR_LAUNCHERS") or root / ".launchers")


def unpack(target: Path) -> None:
    """Fill ``target/wheels``; what is there already stays."""
    for name, requirement in UNPACKED.items():
        place = target / "wheels" / name
        if place.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as trial:
            subprocess.run((*_PIP, "download", *_ANYWHERE, "-d", trial, requirement), check=True)
            with zipfile.ZipFile(next(Path(trial).glob("*.whl"))) as wheel:
                wheel.extractall(Path(trial) / "unpacked")
            (Path(trial) / "unpacked").replace(place)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]) if len(sys.argv) > 1 else folder())
