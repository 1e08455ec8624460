"""Adds torchtitan, DeepSpeed, Accelerate and MaxText to what ``install.py`` prepares.

    python tests/launchers/install_others.py [FOLDER]

FOLDER is the same as there.  None of these is installed with all it asks for: kernels
that need a GPU, triton (1 GB) and services of others have no part in reading a config.
MaxText declares Python 3.12 and is unpacked to ``wheels/maxtext``.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ALONE = (
    "torchtitan==0.3.0",
    "spmd_types==0.2.3",
    "torchdata==0.11.0",
    "torch_checkpointing==0.1.1",
    "torchao==0.18.0",
    "datasets==5.2.0",
    "deepspeed==0.19.8",
    "accelerate==1.15.0",
    "transformers==5.23.0",
)
"""Installed without what they depend on."""

PACKAGES = (
    "torch==2.13.0",
    "numpy",
    "pyyaml",
    "tyro==1.0.17",
    "tokenizers==0.23.3",
    "tensorboard==2.21.0",
    "huggingface_hub",
    "safetensors",
    "pyarrow",
    "pandas",
    "dill",
    "multiprocess",
    "xxhash",
    "psutil",
    "pydantic>=2",
    "hjson",
    "py-cpuinfo",
    "einops",
    "msgpack",
    "ninja",
    "tqdm",
    "jax==0.10.2",
    "flax==0.12.8",
    "optax==0.2.8",
    "orbax-checkpoint==0.12.8",
    "omegaconf==2.4.0",
    "jinja2",
    "jaxtyping",
    "tensorboardX",
    "ml_collections",
)
"""Installed with what they depend on."""

UNPACKED = ("maxtext==0.2.5",)


def install(target: Path) -> None:
    """Fill ``target``; what is there already stays."""
    python = target / "bin" / "python"
    if not python.exists():
        venv.create(target, with_pip=True)
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "-q")
    subprocess.run((*pip, "install", *PACKAGES), check=True)
    subprocess.run((*pip, "install", "--no-deps", *ALONE), check=True)
    for requirement in UNPACKED:
        unpacked = target / "wheels" / requirement.partition("==")[0]
        if unpacked.is_dir():
            continue
        with tempfile.TemporaryDirectory() as download:
            wanted = ("--no-deps", "--python-version", "3.12", "--only-binary=:all:")
            subprocess.run((*pip, "download", *wanted, "-d", download, requirement), check=True)
            with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
                wheel.extractall(unpacked)


if __name__ == "__main__":
    usual = (
        os.environ.get("AUTOPAR_LAUNCHERS") or Path(__file__).resolve().parents[2] / ".launchers"
    )
    install(Path(sys.argv[1] if len(sys.argv) > 1 else usual))
