"""Asks torchtitan, DeepSpeed, Accelerate and MaxText about files, on a CPU.

One JSON object per line comes in (``launcher``, ``files``, ``world``) and one goes out:
whether the launcher's own code takes the files, what it said, and the sizes it read.
"""

import contextlib
import functools
import importlib
import importlib.machinery
import io
import json
import os
import sys
import tempfile
import types
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

Facts = dict[str, Any]
Judge = Callable[[Path, int], Facts]


def torchtitan() -> Judge:
    """ConfigManager, ParallelDims, the model's own checks, and the stages of the pipeline."""
    importlib.import_module("torch")
    # the one module on the path that imports triton
    sys.modules["torchtitan.distributed.minimal_async_ep.kernels"] = mock.MagicMock()
    manager = importlib.import_module("torchtitan.config").ConfigManager
    dims = importlib.import_module("torchtitan.distributed.parallel_dims").ParallelDims
    pipeline = importlib.import_module("torchtitan.distributed.pipeline_parallel")
    for name in ("float8", "mx", "nvfp4"):
        module: Any = importlib.import_module(f"torchtitan.components.quantization.{name}")
        module.has_cuda_capability = lambda *_a: True

    def judge(folder: Path, world: int) -> Facts:
        sys.path.insert(0, str(folder))
        try:
            config = manager().parse_args(["--module", "autopar_run", "--config", "autopar_best"])
        finally:
            sys.path.remove(str(folder))
            for name in [n for n in sys.modules if n.split(".")[0] == "autopar_run"]:
                del sys.modules[name]
            importlib.invalidate_caches()
        config.__post_init__()
        p, t = config.parallelism, config.training
        mesh = dims.from_config(p, world)
        if mesh.dp_shard * mesh.cp * mesh.tp % mesh.ep:
            raise ValueError("the sparse mesh does not cover the dense one")
        config.model_spec.model.update_from_config(config=config)
        pieces = (mesh.tp if p.enable_sequence_parallel else 1) * (
            2 * mesh.cp if mesh.cp > 1 else 1
        )
        if t.seq_len % pieces:
            raise ValueError(f"seq_len {t.seq_len} % {pieces}")
        ranks = mesh.dp_replicate * mesh.dp_shard
        if t.global_batch_size % (t.local_batch_size * ranks):
            raise ValueError("global batch size must be multiple of local batch size times ranks")
        stages = None
        if mesh.pp > 1:
            found = pipeline._get_pipeline_metadata(mesh, p, config.model_spec.model)
            parts = p.module_fqns_per_model_part
            parts = parts or pipeline._generate_llm_fqn_per_model_part(*found)
            for rank in range(mesh.pp):
                pipeline._get_pp_rank_to_stage_indices_mapping(
                    rank, mesh.pp, p.pipeline_parallel_schedule, len(parts)
                )
            stages = [sum(name.startswith("layers.") for name in part) for part in parts]
        return {
            "dp": ranks,
            "dp_shard": mesh.dp_shard,
            "tp": mesh.tp,
            "cp": mesh.cp,
            "pp": mesh.pp,
            "ep": mesh.ep,
            "stages": stages,
            "layers": len(config.model_spec.model.layers),
            "hidden_size": config.model_spec.model.dim,
            "recompute": type(config.activation_checkpoint).__qualname__,
        }

    return judge


def deepspeed() -> Judge:
    """DeepSpeedConfig at the planned number of ranks, and AutoEP's own validation."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    config: Any = importlib.import_module("deepspeed.runtime.config")
    experts = importlib.import_module("deepspeed.module_inject.auto_ep_config")

    def judge(folder: Path, world: int) -> Facts:
        values = json.loads((folder / "ds_config.json").read_text())
        tp = values.get("tensor_parallel", {}).get("autotp_size", 1)
        pp = values.get("pipeline", {}).get("stages", 1)
        sp = values.get("sequence_parallel_size", 1)
        # without a process group it would quietly count one rank
        config.dist = types.SimpleNamespace(
            get_rank=lambda: 0, get_world_size=lambda *_a, **_k: world
        )
        mpu = types.SimpleNamespace(get_data_parallel_world_size=lambda: world // (tp * pp * sp))
        read = config.DeepSpeedConfig(values, mpu=mpu)
        experts.validate_autoep_config(
            read.expert_parallel_config,
            world,
            pp,
            tp,
            sp,
            zero_stage=int(read.zero_config.stage),
            zero_offload_optimizer=read.zero_config.offload_optimizer is not None,
        )
        return {
            "dp": read.train_batch_size
            // (read.train_micro_batch_size_per_gpu * read.gradient_accumulation_steps),
            "micro_batch_size": read.train_micro_batch_size_per_gpu,
            "global_batch_size": read.train_batch_size,
            "tp": max(read.tensor_parallel_config.autotp_size, 1),
            "ep": read.expert_parallel_config.autoep_size,
            "stage": int(read.zero_config.stage),
        }

    return judge


def accelerate() -> Judge:
    """The loader, the parser of ``accelerate launch``, ParallelismConfig, known nested keys."""
    torch = importlib.import_module("torch")
    torch.cuda.device_count = lambda: 8
    torch.cuda.is_available = lambda: True
    loader = importlib.import_module("accelerate.commands.config.config_args")
    launch: Any = importlib.import_module("accelerate.commands.launch")
    launch.is_fp8_available = lambda: True
    environment = importlib.import_module("accelerate.utils.launch")
    parallelism = importlib.import_module("accelerate.parallelism_config").ParallelismConfig

    def judge(folder: Path, world: int) -> Facts:
        path = str(folder / "accelerate.yaml")
        config = loader.load_config_from_file(path)
        args = launch.launch_command_parser().parse_args(["--config_file", path, "train.py"])
        args, _, _ = launch._validate_launch_command(args)
        known = set(vars(launch.launch_command_parser().parse_args(["train.py"])))
        tables = [config.fsdp_config, config.parallelism_config, config.fp8_config]
        unknown = [key for table in tables for key in table or {} if key not in known]
        if unknown:
            raise ValueError(f"nested keys that accelerate ignores: {unknown}")
        variables = environment.prepare_multi_gpu_env(args)
        sizes = {k: v for k, v in variables.items() if k.startswith("PARALLELISM_CONFIG_")}
        with mock.patch.dict(os.environ, sizes):
            read = parallelism()
        if read.total_size != config.num_processes or config.num_processes != world:
            raise ValueError(f"{read.total_size} ranks, {config.num_processes} processes")
        fsdp = variables.get("FSDP_VERSION") == "2"
        if fsdp and not read.dp_shard_enabled and not read.cp_enabled:
            raise ValueError("FSDP has no dimension to shard across")
        return {
            "dp": read.dp_replicate_size * read.dp_shard_size,
            "dp_shard": read.dp_shard_size,
            "tp": read.tp_size,
            "cp": read.cp_size,
            "fsdp": fsdp,
            "reshard": variables.get("FSDP_RESHARD_AFTER_FORWARD"),
        }

    return judge


class _Stubs:
    """Import hook: packages that MaxText imports and that reading its config does not need."""

    NAMES = (
        *("pathwaysutils", "tensorflow", "grain", "tensorflow_datasets", "tensorflow_text"),
        *("ml_goodput_measurement", "cloud_tpu_diagnostics", "qwix", "aqt", "tokamax", "tunix"),
        *("drjax", "jetstream", "transformer_engine", "gcsfs", "sentencepiece", "tiktoken"),
        *("datasets", "transformers", "torch", "orbax", "wandb", "vllm", "google"),
    )

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] not in self.NAMES:
            return None
        loader: Any = self
        return importlib.machinery.ModuleSpec(name, loader, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = mock.MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__version__ = [], spec, "2.8.0"
        return module

    def exec_module(self, module: Any) -> None:
        """Leave the stub as it is."""


def maxtext() -> Judge:
    """``pyconfig.initialize`` at the planned devices, and the mesh filled in as at start."""
    if not hasattr(typing, "override"):
        extensions = importlib.import_module("typing_extensions")
        typing.override = extensions.override  # type: ignore[attr-defined]
    hook: Any = _Stubs()
    sys.meta_path.insert(0, hook)
    pyconfig = importlib.import_module("maxtext.configs.pyconfig")
    utils = importlib.import_module("maxtext.utils.max_utils")
    # reading its own base.yml takes longer than all the rest, and it changes copies only
    load = pyconfig.omegaconf.OmegaConf.load
    once = functools.cache(load)
    own = str(pyconfig.MAXTEXT_CONFIGS_DIR)
    pyconfig.omegaconf.OmegaConf.load = lambda path: (once if own in str(path) else load)(str(path))

    def judge(folder: Path, world: int) -> Facts:
        nodes = max(world // 8, 1)
        devices = [mock.MagicMock(id=i, slice_index=i // 8, platform="gpu") for i in range(world)]
        with (
            mock.patch("jax.device_count", return_value=world),
            mock.patch("jax.devices", return_value=devices),
            mock.patch("jax.process_index", return_value=0),
            mock.patch("jax.process_count", return_value=nodes),
        ):
            config = pyconfig.initialize(
                ["train", str(folder / "maxtext.yml"), "skip_jax_distributed_system=true"]
            )
        ici = utils.fill_unspecified_mesh_axes(list(config.ici_parallelism), world // nodes, "ICI")
        dcn = utils.fill_unspecified_mesh_axes(list(config.dcn_parallelism), nodes, "DCN")
        return {
            "ranks": [a * b for a, b in zip(ici, dcn, strict=True)],
            "axes": list(config.mesh_axes),
            "global_batch_size": config.global_batch_size_to_train_on,
            "layers": config.num_decoder_layers,
            "repeats": config.num_pipeline_repeats if config.using_pipeline_parallelism else 1,
        }

    return judge


JUDGES: dict[str, Callable[[], Judge]] = {
    "torchtitan": torchtitan,
    "deepspeed": deepspeed,
    "accelerate": accelerate,
    "maxtext": maxtext,
}


def verdict(judge: Judge, case: dict[str, Any]) -> dict[str, Any]:
    """What the launcher makes of one set of files."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in case["files"].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                return {"accepted": True, "facts": judge(folder, case["world"])}
        except (Exception, SystemExit) as error:
            why = str(error) or said.getvalue()
            return {"accepted": False, "why": f"{type(error).__name__}: {why}"[:400]}


def main() -> None:
    """Answer each line of the standard input."""
    warnings.filterwarnings("ignore")
    importlib.import_module("logging").disable()
    answers = sys.stdout
    made: dict[str, Judge] = {}
    for line in sys.stdin:
        case = json.loads(line)
        name = case["launcher"]
        with contextlib.redirect_stdout(io.StringIO()):
            judge = made.get(name) or made.setdefault(name, JUDGES[name]())
        answers.write(json.dumps(verdict(judge, case)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
