"""Asks Megatron-LM's own code about command lines, on a CPU, without its kernels.

One JSON object per line comes in (``argv``, ``env``, ``world``) and one goes out.  Runs
under the interpreter that :mod:`tests.launchers.ask` finds, with megatron-core to import.
What a GPU or Transformer Engine would answer at start is answered for them: an H100, and
kernels that are there.
"""

import contextlib
import copy
import importlib
import io
import json
import os
import sys
import typing
import warnings
from typing import Any
from unittest import mock


def prepare() -> tuple[Any, Any]:
    """The arguments module and the training module, made to import without a GPU."""
    warnings.filterwarnings("ignore")
    if not hasattr(typing, "override"):
        extensions = importlib.import_module("typing_extensions")
        typing.override = extensions.override  # type: ignore[attr-defined]
    # the one module on the path that imports triton
    sys.modules["megatron.core.transformer.moe.ops.paged_stash"] = mock.MagicMock()
    torch = importlib.import_module("torch")
    properties = mock.Mock(major=9, minor=0)
    properties.name = "NVIDIA H100"
    torch.cuda.get_device_capability = lambda *_a, **_k: (9, 0)
    torch.cuda.get_device_properties = lambda *_a, **_k: properties
    arguments: Any = importlib.import_module("megatron.training.arguments")
    training = importlib.import_module("megatron.training.training")
    importlib.import_module("logging").disable()
    modules: list[Any] = [
        arguments,
        importlib.import_module("megatron.core.transformer.transformer_config"),
        importlib.import_module("megatron.core.optimizer.optimizer_config"),
    ]
    for module in modules:
        if hasattr(module, "is_te_min_version"):
            module.is_te_min_version = lambda *_a, **_k: True
    # making the parser takes longer than all the rest: one serves for every case
    build = arguments.add_megatron_arguments
    parsers: list[Any] = []

    def parser_once(parser: Any) -> Any:
        if not parsers:
            parsers.append(build(parser))
        return parsers[0]

    arguments.add_megatron_arguments = parser_once
    rope: Any = importlib.import_module("megatron.core.models.common.embeddings.rope_utils")
    rope.fused_apply_rotary_pos_emb = rope.fused_apply_rotary_pos_emb or mock.Mock()
    moe = importlib.import_module("megatron.core.transformer.moe.moe_utils")
    for name in [n for n in vars(moe) if n.startswith("fused_") and getattr(moe, n) is None]:
        setattr(moe, name, mock.Mock())
    return arguments, training


def verdict(case: dict[str, Any], arguments: Any, training: Any) -> dict[str, Any]:
    """How far the command line gets, and the layout that came out of it."""
    os.environ.pop("CUDA_DEVICE_MAX_CONNECTIONS", None)
    os.environ.pop("NVTE_CPU_OFFLOAD_V1", None)
    os.environ.update(case["env"], WORLD_SIZE=str(case["world"]), RANK="0")
    sys.argv = ["pretrain_gpt.py", *case["argv"]]
    stage = "parser"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            args = copy.deepcopy(arguments.parse_args())
            stage = "validate_args"
            args = arguments.validate_args(args)
            stage = "config"
            config = arguments.core_transformer_config_from_args(args)
            training.get_megatron_ddp_config(args)
            _optimizer_config(args)
            stage = "groups"
            found = _groups(args)
            stage = "schedule"
            found["micro_batches"] = _micro_batches(args)
            found["stage_layers"] = _stage_layers(args, config)
    except (Exception, SystemExit) as error:
        text = str(error) if not isinstance(error, SystemExit) else said.getvalue()[-300:]
        return {"accepted": False, "stage": stage, "error": f"{type(error).__name__}: {text}"}
    dump = said.getvalue() if case.get("dump") else ""
    return {"accepted": True, "dump": dump, **found}


def _optimizer_config(args: Any) -> None:
    module = importlib.import_module("megatron.core.optimizer.optimizer_config")
    dataclasses = importlib.import_module("dataclasses")
    names = [f.name for f in dataclasses.fields(module.OptimizerConfig)]
    adam = type(sys)("transformer_engine.pytorch.optimizers")
    adam.FusedAdam = type(  # type: ignore[attr-defined]
        "FusedAdam",
        (),
        {"__init__": lambda self, store_param_remainders=None, use_decoupled_grad=None: None},
    )
    with mock.patch.dict(sys.modules, {adam.__name__: adam}):
        module.OptimizerConfig(**{n: getattr(args, n) for n in names if hasattr(args, n)})


def _groups(args: Any) -> dict[str, Any]:
    """Process groups of rank 0 at the real world size, over a backend that sends nothing."""
    dist = importlib.import_module("torch.distributed")
    fake = importlib.import_module("torch.testing._internal.distributed.fake_pg")
    state = importlib.import_module("megatron.core.parallel_state")
    dist.init_process_group("fake", world_size=args.world_size, rank=0, store=fake.FakeStore())
    try:
        state.initialize_model_parallel(
            args.tensor_model_parallel_size,
            args.pipeline_model_parallel_size,
            args.virtual_pipeline_model_parallel_size,
            context_parallel_size=args.context_parallel_size,
            hierarchical_context_parallel_sizes=args.hierarchical_context_parallel_sizes,
            expert_model_parallel_size=args.expert_model_parallel_size,
            expert_tensor_parallel_size=args.expert_tensor_parallel_size,
            num_distributed_optimizer_instances=args.num_distributed_optimizer_instances,
            order="tp-cp-ep-pp-dp" if args.use_tp_pp_dp_mapping else "tp-cp-ep-dp-pp",
            create_gloo_process_groups=False,
        )
        ranks = dist.get_process_group_ranks
        return {
            "dp": state.get_data_parallel_world_size(),
            "tp": state.get_tensor_model_parallel_world_size(),
            "edp": state.get_expert_data_parallel_world_size(),
            "dp_ranks": ranks(state.get_data_parallel_group())[:4],
        }
    finally:
        state.destroy_model_parallel()
        dist.destroy_process_group()


def _micro_batches(args: Any) -> int:
    """Micro-batches of one pipeline; what the interleaved schedule asks of them at run time."""
    module = importlib.import_module("megatron.core.num_microbatches_calculator")
    count = module.ConstantNumMicroBatchesCalculator(
        args.global_batch_size, args.micro_batch_size, args.data_parallel_size, False, 0
    ).get()
    pp = args.pipeline_model_parallel_size
    if args.virtual_pipeline_model_parallel_size:
        group = args.microbatch_group_size_per_vp_stage or pp
        if not pp <= group <= count or 0 < count % group < pp:
            raise RuntimeError(f"interleaved schedule: {count} micro-batches, group {group}")
    if args.sequence_parallel:
        each = args.seq_length // args.context_parallel_size
        if each % args.tensor_model_parallel_size:
            raise RuntimeError(f"{each} tokens do not divide by the tensor-parallel ranks")
    return int(count)


def _stage_layers(args: Any, config: Any) -> list[int]:
    """Layers of every chunk in model order, as the model would be built."""
    block = importlib.import_module("megatron.core.transformer.transformer_block")
    state = importlib.import_module("megatron.core.parallel_state")
    pp = args.pipeline_model_parallel_size
    vpp = args.virtual_pipeline_model_parallel_size
    layers = []
    for chunk in range(vpp or 1):
        for rank in range(pp):
            with mock.patch.multiple(
                state,
                get_virtual_pipeline_model_parallel_world_size=lambda *_a, **_k: vpp,
                get_pipeline_model_parallel_rank=lambda *_a, _rank=rank, **_k: _rank,
            ):
                stage = chunk if vpp else None
                layers.append(block.get_num_layers_to_build(config, vp_stage=stage, pp_rank=rank))
    return layers


def wrong_rows(rows: list[list[Any]], arguments: Any) -> list[str]:
    """Those of our (name, flag, kind, default) that the parser knows differently."""
    argparse = importlib.import_module("argparse")
    parser = arguments.add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False))
    known = {flag: action for action in parser._actions for flag in action.option_strings}
    wrong = []
    for name, flag, kind, default in rows:
        action = known.get(flag)
        if action is None:
            wrong.append(f"{flag}: no such flag")
            continue
        expected = default if kind not in ("on", "off") else kind == "off"
        same = str(action.default) == str(expected)
        switch = action.nargs == 0
        if action.dest != name or not same or switch != (kind in ("on", "off")):
            wrong.append(f"{flag}: {action.dest}, default {action.default!r}, nargs {action.nargs}")
    return wrong


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    arguments, training = prepare()
    for line in sys.stdin:
        case = json.loads(line)
        answer = (
            {"wrong": wrong_rows(case["table"], arguments)}
            if "table" in case
            else verdict(case, arguments, training)
        )
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
