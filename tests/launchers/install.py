"""Puts the launchers' own packages where the tests marked ``launchers`` look for them.

    python tests/launchers/install.py [FOLDER]

FOLDER (default ``.launchers`` beside pyproject.toml, or ``$AUTOPAR_LAUNCHERS``) becomes a
virtual environment with what can be installed, and in ``wheels/`` what can only be
unpacked: megatron-core declares Python 3.12 and pulls in kernels that need a GPU, yet its
argument parser runs anywhere.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

PACKAGES = (
    "torch==2.13.0",
    "numpy",
    "pyyaml",
    "einops",
    "packaging",
    "typing_extensions",
    "kubeflow-trainer-api==2.3.0",
    "kubernetes-validate==1.37.0",
    "hydra-core",
    "omegaconf",
)
"""Installed with what they depend on."""

UNPACKED = ("megatron-core==0.19.2", "megatron-bridge==0.6.2")
"""Wheels unpacked to ``wheels/NAME``, without what they depend on."""

HEAVY = ("skypilot==0.14.1",)
"""Installed with ``--all`` only: half a gigabyte each."""


def folder() -> Path:
    """Where the packages are, or will be."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("AUTOPAR_LAUNCHERS") or root / ".launchers")


def install(target: Path, *, heavy: bool = False) -> None:
    """Fill ``target``; what is there already stays."""
    python = target / "bin" / "python"
    if not python.exists():
        venv.create(target, with_pip=True)
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "-q")
    packages = PACKAGES + (HEAVY if heavy else ())
    subprocess.run((*pip, "install", *packages), check=True)
    for requirement in UNPACKED:
        unpacked = target / "wheels" / requirement.partition("==")[0].replace("-", "_")
        if unpacked.is_dir():
            continue
        with tempfile.TemporaryDirectory() as download:
            wanted = ("--no-deps", "--python-version", "3.12", "--only-binary=:all:")
            subprocess.run((*pip, "download", *wanted, "-d", download, requirement), check=True)
            with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
                wheel.extractall(unpacked)


if __name__ == "__main__":
    named = [a for a in sys.argv[1:] if not a.startswith("-")]
    install(Path(named[0]) if named else folder(), heavy="--all" in sys.argv)
