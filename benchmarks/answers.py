"""Answers to a fixed list of questions as digests: whether a change moved a number.

    python -m benchmarks.answers            compare with the committed digests
    python -m benchmarks.answers --write    write them anew

Each question is a command line, asked in this process; its JSON document is digested key by
key, so that a key that was added shows as one and not as a different answer.
"""

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import click

from autopar.cli import cli
from benchmarks.measured import PUBLISHED_CSV, RUNS_CSV

DIGESTS = Path(__file__).parent / "results" / "answers.json"
_ROOT = Path(__file__).parents[1]
_GOLDEN = "tests/golden"
_PASSING = ("versions", "seconds", "elapsed_s", "path", "calibration_path")
"""Keys that say when and where, not what."""

QUESTIONS: tuple[str, ...] = (
    "search --gpus 512 --model 70b",
    "search --gpus 512 --model 70b --space full",
    "search --gpus 512 --model 70b --no-refine",
    "search --gpus 8 --model 8b",
    "search --gpus 96 --model 8x7b --tp 1-8 --sharding zero1,fsdp",
    "search --gpus 16384 --model 405b",
    "search --gpus 2048 --model deepseek-v3 --gpu h800 --tp 1 --seq-len 4096 --global-batch 15360",
    "search --gpus 256-1024 --model 70b --objective gpus",
    "search --gpus 64-256 --model 8b --objective cost --cluster aws-p5en",
    "search --gpus 96 --model qwen3-32b --seq-len 32768 --precision fp8 --gpu h200",
    "search --model 8b --cluster mixed-a100-h100",
    "search --gpus 63 --model 8b",
    "search --gpus 64 --model 8x7b --method explore --trials 60",
    "estimate --model 405b --gpus 128 --tp 8 --sharding fsdp --recompute full",
    "estimate --model 70b --gpus 512 --tp 4 --pp 4 --vpp 10 --sharding zero1",
    "estimate --model 8b --gpus 8 --sharding fsdp --framework torchtitan",
    "estimate --model deepseek-v3 --gpus 2048 --pp 16 --ep 64 --gpu h800 --precision fp8",
    "explain --model 70b --gpus 512 --tp 8 --pp 4 --sharding zero1",
    "explain --model 70b --gpus 512 --tp 16",
    "explain --model 70b --gpus 512",
    "simulate --model 70b --gpus 512 --tp 4 --pp 8 --vpp 10 --sharding zero1",
    "simulate --model 8b --gpus 64 --pp 4 --schedule zb-v --global-batch 64 --vpp 2",
    f"estimate --from {_GOLDEN}/megatron/llama3-70b-512",
    f"estimate --from {_GOLDEN}/megatron-bridge/llama3-70b-512",
    f"estimate --from {_GOLDEN}/torchtitan/llama3-70b-512",
    f"estimate --from {_GOLDEN}/nanotron/llama3-70b-512 --model 70b",
    f"estimate --from {_GOLDEN}/maxtext/llama3-70b-512 --model 70b",
    f"estimate --from {_GOLDEN}/deepspeed/llama3-70b-512 --model 70b",
    f"estimate --from {_GOLDEN}/accelerate/llama3-70b-512 --model 70b",
    f"estimate --from {_GOLDEN}/megatron/mixtral-8x22b-128",
    f"improve --from {_GOLDEN}/megatron/llama3-70b-512 --keep tp",
    "models",
    "gpus",
    f"validate {RUNS_CSV.relative_to(_ROOT)}",
    f"validate {PUBLISHED_CSV.relative_to(_ROOT)}",
)


def main() -> int:
    """Compare with the committed digests, or write them; 1 where an answer differs."""
    found = {question: digests(asked(question)) for question in QUESTIONS}
    if "--write" in sys.argv[1:]:
        DIGESTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    known = json.loads(DIGESTS.read_text(encoding="utf-8"))
    differing = 0
    for question, answer in found.items():
        for key in sorted({*answer, *known.get(question, {})}):
            before, now = known.get(question, {}).get(key), answer.get(key)
            if before == now:
                continue
            what = "new" if before is None else "gone" if now is None else "differs"
            differing += what != "new"
            print(f"{what}: {key} of autopar {question}")
    print(f"{len(found)} questions, {differing} keys differ")
    return int(differing > 0)


def asked(question: str) -> Any:
    """The JSON document that answers a question, or what was said where there is none."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.suppress(SystemExit, click.ClickException),
    ):
        cli.main([*question.split(), "--json", "-"])
    text = out.getvalue()
    return json.loads(text) if text.strip() else {"said": err.getvalue()}


def digests(document: Any) -> dict[str, str]:
    """One short digest for each key; of a row list, one for each key of its rows."""
    found: dict[str, str] = {}
    for key, value in document.items():
        if key in _PASSING:
            continue
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            for name in {name for row in value for name in row}:
                found[f"{key}[].{name}"] = _digest([row.get(name) for row in value])
        elif isinstance(value, dict):
            found |= {f"{key}.{name}": _digest(part) for name, part in value.items()}
        else:
            found[key] = _digest(value)
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
