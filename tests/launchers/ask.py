"""Questions to the launchers' own code, in a program of its own for each of them.

A program stays for as long as the tests run, since importing a launcher takes longer than
most questions; it answers every line of JSON with one.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest

from autopar.launchers.formats.shell import read_script
from autopar.launchers.plan import Emission
from tests.launchers.unpack import UNPACKED, folder

_HERE = Path(__file__).parent
_VARIABLES = ("CUDA_DEVICE_MAX_CONNECTIONS", "NVTE_CPU_OFFLOAD_V1")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "megatron": ("torch",),
    "megatron-bridge": ("torch", "hydra", "omegaconf"),
    "torchtitan": ("torchtitan",),
    "deepspeed": ("deepspeed",),
    "accelerate": ("accelerate", "transformers"),
    "maxtext": ("jax", "flax", "optax"),
}
"""Packages that each launcher's questions need, beside the unpacked wheels."""
_WHEELS: Mapping[str, tuple[str, ...]] = {
    "megatron": ("megatron_core",),
    "megatron-bridge": ("megatron_core", "megatron_bridge"),
    "maxtext": ("maxtext",),
}
_PROGRAMS = {"megatron": "megatron_verdicts.py", "megatron-bridge": "bridge_verdicts.py"}
_FIND = """import importlib.util, json, sys
print(json.dumps({n: s and list(s.submodule_search_locations or [""])
                  for n in sys.argv[1:] for s in [importlib.util.find_spec(n)]}))"""


def ask(name: str, cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts of launcher ``name``, in order; skips the test where it is not installed."""
    require(name)
    wheels = (folder() / "wheels" / wheel for wheel in _WHEELS.get(name, ()))
    paths = [str(wheel.resolve()) for wheel in wheels if wheel.is_dir()]
    if name == "megatron-bridge":
        paths.append(str(_HERE.parents[1]))
    script = _PROGRAMS.get(name, "other_verdicts.py")
    program = _program(script, name, os.pathsep.join(paths))
    return [program.answer(case) for case in cases]


def ask_wrapper(cases: Iterable[dict[str, Any]], *needed: str) -> list[str | None]:
    """What torchrun, the Kubernetes models or SkyPilot refuse of each case, None for nothing."""
    _require_packages(*needed)
    program = _program("wrapper_verdicts.py", "wrappers", "")
    return [program.answer(case)["error"] for case in cases]


def require(name: str) -> None:
    """Skip the test where the packages of launcher ``name`` are missing, and say which."""
    _require_packages(*NEEDED[name])
    for wheel in _WHEELS.get(name, ()):
        if not (folder() / "wheels" / wheel).is_dir() and not _places(wheel.replace("_", ".")):
            pytest.skip(
                f"{UNPACKED[wheel]} is neither installed nor in {folder()}/wheels: "
                "run python tests/launchers/unpack.py"
            )


def package(name: str) -> Path:
    """The folder of an installed or unpacked package, by its dotted name; skips without it."""
    inside = Path(*name.split("."))
    for wheel in UNPACKED:
        path = folder() / "wheels" / wheel / inside
        if path.is_dir():
            return path
    places = _places(name)
    if not places:
        pytest.skip(f"{name} is not installed for {interpreter()}, nor unpacked: see unpack.py")
    return Path(places[0])


def interpreter() -> Path:
    """The Python of ``.launchers`` if it has one, or else the one that runs the tests."""
    own = folder() / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def _require_packages(*names: str) -> None:
    missing = [name for name in names if not _places(name)]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed for {interpreter()}: "
            "run pip install -e '.[launchers]' with it"
        )


@cache
def _places(name: str) -> tuple[str, ...]:
    """Folders of a package that the interpreter would import; none where there is no such one."""
    parent = name.rpartition(".")[0]
    if parent and not _places(parent):
        return ()
    done = subprocess.run(
        [interpreter(), "-c", _FIND, name], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(done.stdout)[name] or ())


@dataclass(frozen=True)
class _Program:
    """A running program of this folder, and the file of its complaints."""

    process: "subprocess.Popen[str]"
    errors: IO[bytes]

    def answer(self, case: dict[str, Any]) -> dict[str, Any]:
        """The next line that it prints, once it has read ``case``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace")
            raise RuntimeError(f"{self.process.args!r} ended: {said[-2000:]}") from None
        return answer

    def end(self) -> None:
        """Tell it that there are no more questions."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@cache
def _program(program: str, name: str, paths: str) -> _Program:
    """``program`` for launcher ``name`` alone, with ``paths`` to import from."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (the program's, to its end)
    process = subprocess.Popen(
        [interpreter(), "-W", "ignore", _HERE / program, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    found = _Program(process, errors)
    atexit.register(found.end)
    return found


def megatron_case(emission: Emission, world: int, *, dump: bool = False) -> dict[str, Any]:
    """What the emitted script would run: arguments of the program, and its environment."""
    script = read_script(emission.files["megatron.sh"], name="megatron.sh")
    command = [w.text for w in next(c for c in script.commands if c[0].text == "torchrun")]
    program = next(i for i, word in enumerate(command) if word.endswith("pretrain_gpt.py"))
    variables = {n: script.variables[n][0].text for n in _VARIABLES if n in script.variables}
    return {"argv": command[program + 1 :], "env": variables, "world": world, "dump": dump}
