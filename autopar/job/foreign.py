"""Files and commands of others: gathered, recognised, and handed to the reader they belong to."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autopar.launchers import dossier, names
from autopar.launchers.formats.documents import hf_model, parse_json
from autopar.launchers.plan import Reading
from cost_models.catalog.files import read_text
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

STDIN, COMMAND = "-", "command"
_CHOICE = "::"
_LARGEST_BYTES = 16 * 2**20
_MOST_FILES = 200
_SUFFIXES = (".sh", ".sbatch", ".slurm", ".py", ".json", ".yaml", ".yml", ".txt", ".log", "")
_STARTERS = ("run.sh", "job.sbatch", "trainjob.yaml", "jobset.yaml", "skypilot.yaml")
"""What a wrapper adds to a launcher's own files."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Texts by name, and the function that is meant where one of them has several."""

    files: Mapping[str, str]
    choice: str | None = None
    model: ModelSpec | None = None
    """The model of a ``config.json`` beside them."""

    @property
    def title(self) -> str:
        """Their names in few words."""
        first, *more = self.files
        return f"{first} and {len(more)} more" if more else first


def gather(words: Sequence[str]) -> Sources:
    """Texts behind paths, directories, ``-`` and commands; ``FILE.py::NAME`` names a function.

    Raises
    ------
    SpecError
        In one line for a path that is not there or cannot be read as text.
    """
    files: dict[str, str] = {}
    choice = None
    for word in words:
        path, found = _split(word)
        choice = found or choice
        if word == STDIN:
            files[STDIN] = sys.stdin.read(_LARGEST_BYTES)
        elif path is not None and path.is_dir():
            files |= _directory(path)
        elif path is not None:
            files[str(path)] = _text(path)
        elif re.search(r"\s|=|^--", word):
            files[COMMAND] = f"{files.get(COMMAND, '')}{word}\n"
        else:
            raise SpecError(
                f"--from {word!r:.80}: no such file", hint="a command is quoted as one word"
            )
    models = [name for name, text in files.items() if _is_hf_config(name, text)]
    model = hf_model(files[models[-1]], name=models[-1]) if models else None
    own = {name: text for name, text in files.items() if name not in models}
    if not any(text.strip() for text in own.values()):
        raise SpecError(f"--from {' '.join(words):.80}: nothing to read in there")
    return Sources(own, choice, model)


def _split(word: str) -> tuple[Path | None, str | None]:
    """The path in a word, if there is one, and the function named behind it."""
    head, mark, choice = word.rpartition(_CHOICE)
    for text, chosen in ((word, None), (head, choice)) if mark else ((word, None),):
        try:
            path = Path(text).expanduser()
            if text and path.exists():
                return path, chosen
        except (OSError, RuntimeError, ValueError):  # too long, nobody's home, or a null byte
            continue
    return None, None


def _text(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_BYTES:
            raise SpecError(f"{path}: is too large for a configuration")
    except OSError as error:
        raise SpecError(f"{path}: cannot read: {error.strerror}") from None
    return read_text(path)


def _directory(folder: Path) -> dict[str, str]:
    """Files of a directory that a launcher could read, those of wrappers left out."""
    try:
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in _SUFFIXES)
    except OSError as error:
        raise SpecError(f"{folder}: cannot read: {error.strerror}") from None
    own = [p for p in paths if p.name not in _STARTERS and not p.name.startswith(".")]
    if not own:
        raise SpecError(f"{folder}: no configuration in there")
    if len(own) > _MOST_FILES:
        raise SpecError(f"{folder}: {len(own)} files, too many for one run", hint="name the file")
    return {str(path): _text(path) for path in own}


def _is_hf_config(name: str, text: str) -> bool:
    if not name.endswith(".json") or '"model_type"' not in text:
        return False
    return isinstance(parse_json(text, name=name).values.get("model_type"), str)


def detect(sources: Sources) -> str:
    """The launcher whose files these look like; raises SpecError where none stands out."""
    text = "\n".join((*sources.files, *sources.files.values()))
    scores = {
        name: sum(bool(re.search(sign, text, re.MULTILINE)) for sign in dossier(name).signs)
        for name in names()
    }
    best = max(scores.values())
    leaders = [name for name, score in scores.items() if score == best]
    if best == 0 or len(leaders) > 1:
        could = f"{' or '.join(leaders)}?" if best else "none is known"
        raise SpecError(
            f"{sources.title}: whose files are these? {could}",
            hint=f"say it: --launcher; known: {', '.join(names())}",
        )
    return leaders[0]


def read_foreign(sources: Sources, name: str, gpus: int | None = None) -> Reading:
    """What the files say in the words of launcher ``name``, on ``gpus`` where that is asked.

    Raises
    ------
    SpecError
        With the file, and the line or field, for what cannot be read.
    """
    return dossier(name).read(sources.files, world_size=gpus, choice=sources.choice)
