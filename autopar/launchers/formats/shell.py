"""Words of a shell script: written so that no value becomes code, read without running any.

:func:`commands` understands what launch scripts are made of: assignments, arrays,
``${NAME}`` and ``${NAME:-default}``, whole-number arithmetic, quotes, continued lines.
What it cannot know (a command's output, an unset variable) stays marked as unknown, so
that only those who need the value complain.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autopar.launchers.formats.shell_words import Part, RawWord, statements
from cost_models.specs.errors import SpecError

_LONGEST = 1_000_000
"""Characters that one word may grow to; variables that double each other would not end."""
_KEYWORDS = {
    *("if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac"),
    *("{", "}", "!", "export", "local", "declare", "readonly", "time", "exec", "eval", "function"),
}
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_NAME = re.compile(r"[A-Za-z_]\w*|\d+|[@*#?]")


@dataclass(frozen=True, slots=True)
class Word:
    """One argument as the command would see it, and where it was written."""

    text: str
    line: int
    unknown: str | None = None
    """What the text depends on and the script does not say: ``$DATA_PATH``."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a script would run, and what it had assigned when it ended."""

    commands: tuple[tuple[Word, ...], ...]
    variables: Mapping[str, tuple[Word, ...]]


def quoted(value: object) -> str:
    """``value`` as one shell word, whatever is in it.

    >>> print(quoted("70b; rm -rf $HOME"))
    '70b; rm -rf $HOME'
    """
    return shlex.quote(str(value))


def array(name: str, arguments: Sequence[Sequence[str]]) -> str:
    """A bash array with one flag and its values on each line."""
    rows = "".join(f"    {' '.join(quoted(a) for a in words)}\n" for words in arguments)
    return f"{name}=(\n{rows})"


def checkout(variable: str, file: str, product: str) -> str:
    """Lines that stop a script where the folder in ``variable`` does not hold ``file``."""
    return f"""{variable}=${{{variable}:-.}}
if [ ! -f "${variable}/{file}" ]; then
    echo "no ${variable}/{file}: set {variable} to a checkout of {product}" >&2
    exit 2
fi"""


def torchrun_head(
    checked: str, variables: Mapping[str, str], *, world_size: int, gpus_per_node: int
) -> str:
    """Lines above a launcher's own: the node's place, ``checked``, exports, ``LAUNCH_ARGS``."""
    per_node = min(gpus_per_node, world_size)
    exports = "".join(f"export {n}={quoted(v)}\n" for n, v in variables.items())
    return f"""set -euo pipefail

NNODES=${{NNODES:-{-(-world_size // per_node)}}}
GPUS_PER_NODE=${{GPUS_PER_NODE:-{per_node}}}
NODE_RANK=${{NODE_RANK:-0}}
MASTER_ADDR=${{MASTER_ADDR:-localhost}}
MASTER_PORT=${{MASTER_PORT:-29500}}
{checked}
{exports}
LAUNCH_ARGS=(
    --nnodes "$NNODES"
    --nproc-per-node "$GPUS_PER_NODE"
    --node-rank "$NODE_RANK"
    --master-addr "$MASTER_ADDR"
    --master-port "$MASTER_PORT"
)"""


def read_script(text: str, *, name: str) -> Script:
    """Every command of the script with its words expanded; raises SpecError with file and line."""
    variables: dict[str, tuple[Word, ...]] = {}
    found: list[tuple[Word, ...]] = []
    for statement in statements(text, name=name):
        words = list(statement)
        while words and words[0].plain in _KEYWORDS:
            words = words[1:]
        while words and (assigned := _ASSIGNMENT.match(words[0].head)):
            _assign(words[0], assigned, variables, name)
            words = words[1:]
        command = tuple(w for raw in words for w in _expand(raw, variables, name))
        if command:
            found.append(command)
    return Script(tuple(found), variables)


def _assign(
    raw: RawWord,
    assigned: re.Match[str],
    variables: dict[str, tuple[Word, ...]],
    name: str,
) -> None:
    variable, more = assigned.group(1), bool(assigned.group(2))
    old = variables.get(variable, ())
    if raw.array is not None:
        new = tuple(w for item in raw.array for w in _expand(item, variables, name))
        variables[variable] = old + new if more else new
        return
    rest = RawWord([Part(raw.head[assigned.end() :], quoted=True), *raw.parts[1:]], raw.line)
    pieces = _expand(rest, variables, name, split=False)
    joined = Word(
        (old[0].text if more and old else "") + " ".join(w.text for w in pieces),
        raw.line,
        next((w.unknown for w in (*old, *pieces) if w.unknown), None),
    )
    variables[variable] = (joined,)


def _expand(
    raw: RawWord,
    variables: Mapping[str, tuple[Word, ...]],
    name: str,
    *,
    split: bool = True,
) -> Iterator[Word]:
    """The words that one written word becomes: none, one, or many."""
    text, unknown, any_quoted = "", None, False
    for part in raw.parts:
        any_quoted |= part.quoted
        if part.variable is None:
            text += part.text
            continue
        values = _lookup(part.variable, variables)
        if values is None:
            unknown, text = unknown or f"${part.variable}", text + "?"
            continue
        unknown = unknown or next((v.unknown for v in values if v.unknown), None)
        if ("[" in part.variable or part.variable == "@") and len(raw.parts) == 1 and split:
            yield from values
            return
        value = " ".join(v.text for v in values)
        if part.quoted or not split:
            text += value
        elif len(raw.parts) == 1:
            line = values[0].line if values else raw.line
            yield from (Word(piece, line, unknown) for piece in value.split())
            return
        else:
            text += value
        if len(text) > _LONGEST:
            raise SpecError(f"{name}:{raw.line}: a word grows beyond {_LONGEST} characters")
    if text or any_quoted or not split:
        yield Word(text, raw.line, unknown)


def _lookup(expression: str, variables: Mapping[str, tuple[Word, ...]]) -> tuple[Word, ...] | None:
    """Values of what stands between ``${`` and ``}``; None where the script does not say."""
    if expression.startswith("(("):
        number = _arithmetic(expression[2:-2], variables)
        return None if number is None else (Word(str(number), 0),)
    head = _NAME.match(expression)
    if not head:
        return None
    variable, rest = head.group(), expression[head.end() :]
    if variable in "@*":
        return ()
    rest = rest.removeprefix("[@]").removeprefix("[*]")
    values = variables.get(variable)
    if rest.startswith((":-", "-", ":=", "=")):
        default = rest.lstrip(":")[1:]
        if values and values[0].text:
            return values
        inner = re.fullmatch(r"\$\{?(\w+)\}?", default)
        return _lookup(inner.group(1), variables) if inner else (Word(default.strip("'\""), 0),)
    return values if not rest else None


def _arithmetic(expression: str, variables: Mapping[str, tuple[Word, ...]]) -> int | None:
    """Value of ``$((...))`` over + - * / % and whole numbers, None where something is unknown."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=variable):
                return int(variables[variable][0].text)
            case ast.BinOp(left=left, op=op, right=right):
                a, b = value(left), value(right)
                match op:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                    case ast.Div() | ast.FloorDiv():
                        return a // b
                    case ast.Mod():
                        return a % b
        raise ValueError(ast.dump(node))

    try:
        plain = re.sub(r"\$\{?(\w+)\}?", r"\1", expression).strip()
        return value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, KeyError, IndexError, ZeroDivisionError, RecursionError):
        return None
