"""Megatron-LM: a bash script of flags for ``pretrain_gpt.py``, written and read back.

Which flag says which of our knobs stands in :mod:`autopar.launchers.megatron.args`.
"""

import re
from collections.abc import Mapping, Sequence

from autopar.launchers.formats.shell import (
    Script,
    Word,
    array,
    checkout,
    read_script,
    torchrun_head,
)
from autopar.launchers.knobs import heading, not_expressed, printable
from autopar.launchers.megatron.args.dump import is_dump, parse_dump
from autopar.launchers.megatron.args.flags import (
    ARGUMENTS,
    DATA,
    MODEL,
    OPTIMIZER,
    PARALLEL,
    Values,
    lines,
    parse,
)
from autopar.launchers.megatron.args.model import read_model
from autopar.launchers.megatron.args.values import environment, located, read_strategy, write
from autopar.launchers.megatron.args.vocabulary import vocabulary
from autopar.launchers.megatron.args.world import world_size_of
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

FILE = "megatron.sh"
_PROGRAM = "pretrain_gpt.py"
_TABLES = (
    ("MODEL_ARGS", MODEL),
    ("DATA_ARGS", DATA),
    ("PARALLEL_ARGS", PARALLEL),
    ("OPTIMIZER_ARGS", OPTIMIZER),
)
_TRAINING = (
    ("--lr", "1e-4"),
    ("--min-lr", "1e-5"),
    ("--lr-decay-style", "cosine"),
    ("--clip-grad", "1.0"),
    ("--train-iters", "100"),
    ("--eval-iters", "0"),
    ("--log-interval", "1"),
    ("--log-throughput",),
)
_MODEL_LINE = re.compile(r"^# Model: (.+)$", re.MULTILINE)


def emit(plan: Plan, targets: str) -> Emission:
    """``megatron.sh``: run it on every node with NODE_RANK and MASTER_ADDR set."""
    written = write(plan)
    body = _body(plan, written.values)
    said = read(body, name=FILE).strategy
    unsaid = (
        *not_expressed(written.wanted, said, written.reasons, plan.model),
        *written.left_out,
    )
    head = [*heading(plan, f"Megatron-LM ({targets})", unsaid), f"Model: {plan.model.name}"]
    comments = "".join(f"# {printable(line)}\n" for line in head)
    return Emission(
        files={FILE: f"#!/usr/bin/env bash\n{comments}{body}"},
        not_expressed=unsaid,
    )


def _body(plan: Plan, values: Values) -> str:
    variables = environment(plan, values)
    head = torchrun_head(
        checkout("MEGATRON_LM", _PROGRAM, "Megatron-LM"),
        variables,
        world_size=plan.strategy.world_size,
        gpus_per_node=plan.cluster.gpus_per_node,
    )
    arrays = "\n".join(array(name, lines(values, table)) for name, table in _TABLES)
    return f"""{head}

{arrays}
{array("TRAINING_ARGS", _TRAINING)}
exec torchrun "${{LAUNCH_ARGS[@]}}" "$MEGATRON_LM/{_PROGRAM}" \\
    "${{MODEL_ARGS[@]}}" \\
    "${{DATA_ARGS[@]}}" \\
    "${{PARALLEL_ARGS[@]}}" \\
    "${{OPTIMIZER_ARGS[@]}}" \\
    "${{TRAINING_ARGS[@]}}" \\
    "$@"
"""


def read(
    source: str | Mapping[str, str],
    *,
    name: str = FILE,
    world_size: int | None = None,
    choice: str | None = None,
) -> Reading:
    """What a launch script, a command line, or a log with the arguments dump says.

    ``source`` is the text, or several texts by file name, of which the one with the most
    Megatron arguments is read.  Without a world size in the file and without
    ``world_size``, dp is 1; there is no ``choice``.  Raises SpecError as
    ``file:line: field: what is wrong``.
    """
    unread: Sequence[str] = ()
    if isinstance(source, Mapping):
        if not source:
            raise SpecError("no files to read")
        files = source
        name, source = max(
            files.items(), key=lambda file: sum(a.flag in file[1] for a in ARGUMENTS.values())
        )
        unread = [file for file in files if file != name]
    notes: dict[str, str] = {}
    if is_dump(source):
        values, where, ignored = parse_dump(source, name=name)
        world = values.get("world_size")
    else:
        script = read_script(source, name=name)
        values, where, ignored = parse(_command(script, name), name=name)
        world = world_size_of(script, source)
    if world_size and world and world != world_size:
        notes["world_size"] = f"the file says {world}, {world_size} was asked for"
    world = world_size or world
    if world is None:
        notes["dp"] = "the file does not say how many GPUs there are, so dp is 1"
    strategy = read_strategy(values, where, world, name=name)
    title = _MODEL_LINE.search(source)
    model = _model(values, where, title.group(1) if title else "megatron", name, notes)
    return Reading(
        strategy=strategy,
        world_size=world,
        model=model,
        global_batch_size=values.get("global_batch_size"),
        sequence_length=values.get("seq_length"),
        ignored=tuple(dict.fromkeys([*unread, *ignored])),
        notes=notes,
    )


def _command(script: Script, name: str) -> Sequence[Word]:
    """The command, or the variable, that holds the most Megatron flags."""
    flags = {a.flag for a in ARGUMENTS.values()}
    candidates = [*script.commands, *script.variables.values()]
    split = [tuple(w for word in words for w in _split(word)) for words in candidates]
    best = max(split, key=lambda words: sum(_flag(w) in flags for w in words), default=())
    if not any(_flag(w) in flags for w in best):
        raise SpecError(
            f"{name}: no Megatron-LM flag found",
            hint="expected a launch script, a command line, or a log with the arguments dump",
        )
    first = next(i for i, w in enumerate(best) if _flag(w) in flags)
    return best[first:]


def _flag(word: Word) -> str:
    return word.text.partition("=")[0]


def _split(word: Word) -> Sequence[Word]:
    """A whole command line in one word, as ``bash -c`` takes it, cut into its words."""
    if "--" not in word.text or not re.search(r"\s", word.text.strip()):
        return (word,)
    return [
        Word(piece.strip("'\""), word.line, word.unknown if "?" in piece else None)
        for piece in word.text.split()
    ]


def _model(
    values: Values, where: Mapping[str, int], title: str, name: str, notes: dict[str, str]
) -> ModelSpec | None:
    if values.get("num_layers") is None or values.get("hidden_size") is None:
        notes["model"] = "the file does not give the model's shape"
        return None
    try:
        return read_model(values, name=title, vocab_size=vocabulary(values, notes))
    except SpecError as error:
        raise located(error, where, name=name) from None
