"""Asks Megatron-Bridge's own code about overrides, on a CPU, without what it imports in vain.

One JSON object per line comes in (``overrides``, ``env``, ``world``, ``mla``) and one goes
out: ``{"error": null, "tp": ..., "dp": ...}`` or what was refused.  megatron-core and
megatron-bridge are on PYTHONPATH; packages for other models, tokenizers and services are
replaced by empty ones.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import sys
import types
from collections.abc import Sequence
from typing import Any
from unittest import mock

from tests.launchers.megatron_verdicts import prepare

ABSENT = {
    *("transformers", "modelopt", "nvidia_resiliency_ext", "datasets", "wandb", "huggingface_hub"),
    *("transformer_engine", "PIL", "accelerate", "timm", "peft", "flash_attn", "qwen_vl_utils"),
    *("rich", "safetensors", "tqdm", "regex", "six", "diffusers", "torchvision", "requests"),
    *("mlflow", "comet_ml", "tensorboard", "webdataset", "sentencepiece", "tiktoken", "pandas"),
    *("mamba_ssm", "causal_conv1d", "fla", "apex", "pydantic", "numba", "ftfy", "imageio"),
}
HOLLOW = ("", ".models", ".diffusion", ".models.conversion", ".models.hf_pretrained")
"""Packages of Bridge whose ``__init__`` imports every model; only their modules are wanted."""


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of packages that are not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for the names in :data:`ABSENT` alone."""
        if fullname.partition(".")[0] in ABSENT or fullname.startswith("megatron.energon"):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        """A module whose every attribute is a mock."""
        return mock.MagicMock(__path__=[], __spec__=spec, __version__="2.10.0", __name__=spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def _prepare_bridge() -> Any:
    """Bridge's config module, imported past the packages that are not here."""
    prepare()
    for name in ("torch._dynamo", "torch.utils.flop_counter", "torch.fx"):
        importlib.import_module(name)
    wrap: Any = sys.modules["torch.fx"]
    wrap.wrap = lambda function: function
    sys.meta_path.insert(0, _Absent())  # even where another launcher has brought them
    megatron = importlib.import_module("megatron")
    root = next(p for p in megatron.__path__ if os.path.isdir(f"{p}/bridge"))  # noqa: PTH112
    for part in HOLLOW:
        module: Any = types.ModuleType(f"megatron.bridge{part}")
        module.__path__ = [f"{root}/bridge{part.replace('.', '/')}"]
        module.__getattr__ = _empty_class
        sys.modules[module.__name__] = module
    provider = importlib.import_module("megatron.bridge.models.gpt_provider")
    models: Any = sys.modules["megatron.bridge.models"]
    models.GPTModelProvider = provider.GPTModelProvider
    config = importlib.import_module("megatron.bridge.training.config")
    transformers: Any = importlib.import_module("transformers")
    transformers.GenerationConfig = type("GenerationConfig", (), {})
    transformers.PretrainedConfig = type("PretrainedConfig", (), {})
    return config


def _empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def _container(config: Any, *, mla: bool) -> Any:
    """A small run such as a recipe would return."""
    torch = importlib.import_module("torch")
    name, module = ("MLAModelProvider", "mla") if mla else ("GPTModelProvider", "gpt")
    provider = getattr(importlib.import_module(f"megatron.bridge.models.{module}_provider"), name)
    return config.ConfigContainer(
        model=provider(
            num_layers=2,
            hidden_size=64,
            num_attention_heads=4,
            gradient_accumulation_fusion=False,
            apply_rope_fusion=False,
            bf16=True,
            params_dtype=torch.bfloat16,
            pipeline_dtype=torch.bfloat16,
        ),
        train=config.TrainingConfig(global_batch_size=128, micro_batch_size=1, train_iters=10),
        optimizer=config.OptimizerConfig(optimizer="adam", lr=1e-4, bf16=True),
        scheduler=config.SchedulerConfig(lr_decay_iters=10, lr_warmup_iters=0),
        dataset=config.MockGPTDatasetConfig(
            random_seed=1,
            seq_length=8192,
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
        ),
        logger=config.LoggerConfig(),
        tokenizer=config.TokenizerConfig(tokenizer_type="NullTokenizer", vocab_size=128256),
        checkpoint=config.CheckpointConfig(),
        ddp=config.DistributedDataParallelConfig(),
        rng=config.RNGConfig(),
        mixed_precision="bf16_mixed",
    )


def verdict(case: dict[str, Any], config: Any) -> dict[str, Any]:
    """What applying the overrides and validating the whole comes to."""
    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "NVTE_CPU_OFFLOAD_V1"):
        os.environ.pop(name, None)
    os.environ.update(case["env"])
    config.get_world_size_safe = lambda: case["world"]
    utils = importlib.import_module("megatron.bridge.training.utils.omegaconf_utils")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run = utils.process_config_with_overrides(
                _container(config, mla=case["mla"]), cli_overrides=case["overrides"]
            )
            config.runtime_config_update(run)
            run.validate()
    except (Exception, SystemExit) as refused:
        return {"error": f"{type(refused).__name__}: {refused}"}
    return {
        "error": None,
        "tp": run.model.tensor_model_parallel_size,
        "dp": run.data_parallel_size,
        "fsdp": run.ddp.use_megatron_fsdp,
    }


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    config = _prepare_bridge()
    for line in sys.stdin:
        out.write(json.dumps(verdict(json.loads(line), config)) + "\n")


if __name__ == "__main__":
    main()
