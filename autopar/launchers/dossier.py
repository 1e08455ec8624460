"""A launcher's folder as one object: what ``dossier.toml`` says, and its modules.

``dossier.toml`` holds facts, ``files.py`` writes and reads the launcher's files.  The modules
are imported when they are first needed.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.catalog.files import build, read_toml
from cost_models.specs.errors import SpecError

SHIPPED = Path(__file__).parent
FACTS, FILES = "dossier.toml", "files.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a person, or a wrapper, types to run the files."""

    command: str
    """In the folder of the files."""
    node: str
    """Of ``run.sh``, on every node, with NODE_RANK, MASTER_ADDR and their kin set."""
    needs: str = ""
    """A checkout that the script asks for, as people usually have it."""


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """Everything that is known of one launcher."""

    name: str
    title: str
    """As its makers write it."""
    targets: str
    """The release that all of this describes."""
    framework: str
    """Recipe of the jobs that it runs: their memory, kernels and overlaps."""
    signs: tuple[str, ...]
    """Regular expressions that its files match; of all launchers the one with the most is meant."""
    batch_is_said: bool
    """Its files name the global batch, whatever the number of GPUs; else the batch of a rank."""
    experts_cut_with_heads: bool = False
    """Tensor parallel cuts the experts too, so a reader needs the model to know etp."""
    start: Start
    folder: Path

    def emit(self, plan: Plan) -> Emission:
        """The files that run ``plan``; raises SpecError for what the launcher cannot express."""
        emission: Emission = self._files.emit(plan, self.targets)
        return replace(emission, launcher=self.name, targets=self.targets, warnings=plan.warnings)

    def read(
        self,
        files: Mapping[str, str],
        *,
        world_size: int | None = None,
        choice: str | None = None,
    ) -> Reading:
        """What files say, by name, on ``world_size`` GPUs where they leave that open.

        ``choice`` names the function of a module that has several.  Raises SpecError with
        the file, and the line or field, for what cannot be read.
        """
        if not files:
            raise SpecError("no files to read")
        reading: Reading = self._files.read(files, world_size=world_size, choice=choice)
        return reading

    @cached_property
    def _files(self) -> ModuleType:
        return module_of(self.folder, FILES)


def module_of(folder: Path, file: str) -> ModuleType:
    """A module of a launcher's folder; raises SpecError where there is no such file."""
    stem = file.removesuffix(".py")
    if folder.parent == SHIPPED:
        return import_module(f"autopar.launchers.{folder.name}.{stem}")
    path = folder / file
    name = f"autopar_launcher_{folder.name}_{stem}"
    spec = spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SpecError(f"{path}: is missing", hint="a launcher's folder has one")
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_dossier(folder: Path) -> Dossier:
    """The launcher in a folder.

    Raises
    ------
    SpecError
        With the file, and the line where there is one, for a key that is unknown, missing
        or of the wrong type.
    """
    path = folder / FACTS
    table = read_toml(path)
    start = build(Start, table.pop("start", {}), path)
    return build(Dossier, {**table, "start": start, "folder": folder}, path)
