"""Questions to the launchers' own code, run by the interpreter that ``install.py`` prepares."""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from autopar.launchers.plan import Emission
from autopar.launchers.shell import read_script
from tests.launchers.install import folder

_HERE = Path(__file__).parent
_VARIABLES = ("CUDA_DEVICE_MAX_CONNECTIONS", "NVTE_CPU_OFFLOAD_V1")


def interpreter(*needed: str) -> Path:
    """The prepared Python; skips the test where it or one of the modules is missing."""
    python = folder() / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python}: run python tests/launchers/install.py")
    for module in needed:
        found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip(f"{module} is not installed in {folder()}")
    return python


def ask_megatron(cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Megatron-LM's verdict on each command line, in order."""
    wheel = folder() / "wheels" / "megatron_core"
    python = interpreter("torch")
    if not wheel.is_dir():
        pytest.skip(f"no {wheel}: run python tests/launchers/install.py")
    return _ask(python, "megatron_verdicts.py", cases, {"PYTHONPATH": str(wheel)})


def ask_bridge(cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Megatron-Bridge's verdict on each list of overrides, in order."""
    python = interpreter("torch", "hydra", "omegaconf")
    wheels = [folder() / "wheels" / name for name in ("megatron_core", "megatron_bridge")]
    missing = [str(wheel) for wheel in wheels if not wheel.is_dir()]
    if missing:
        pytest.skip(f"no {missing[0]}: run python tests/launchers/install.py")
    paths = [*map(str, wheels), str(_HERE.parents[1])]
    return _ask(python, "bridge_verdicts.py", cases, {"PYTHONPATH": os.pathsep.join(paths)})


def ask_wrapper(cases: Iterable[dict[str, Any]], *needed: str) -> list[str | None]:
    """What torchrun, the Kubernetes models or SkyPilot refuse of each case, None for nothing."""
    answers = _ask(interpreter(*needed), "wrapper_verdicts.py", cases, {})
    return [answer["error"] for answer in answers]


def _ask(
    python: Path, program: str, cases: Iterable[dict[str, Any]], variables: dict[str, str]
) -> list[dict[str, Any]]:
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | variables
    done = subprocess.run(
        [python, "-W", "ignore", _HERE / program],
        input="".join(json.dumps(case) + "\n" for case in cases),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def megatron_case(emission: Emission, world: int, *, dump: bool = False) -> dict[str, Any]:
    """What the emitted script would run: arguments of the program, and its environment."""
    script = read_script(emission.files["megatron.sh"], name="megatron.sh")
    command = [w.text for w in next(c for c in script.commands if c[0].text == "torchrun")]
    program = next(i for i, word in enumerate(command) if word.endswith("pretrain_gpt.py"))
    variables = {n: script.variables[n][0].text for n in _VARIABLES if n in script.variables}
    return {"argv": command[program + 1 :], "env": variables, "world": world, "dump": dump}
