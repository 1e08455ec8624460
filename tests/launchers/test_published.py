"""Recipes that ship inside the launchers' packages are priced as they are, none edited by hand."""

import re
from pathlib import Path

import pytest

from autopar.job.completion import complete
from autopar.job.foreign import gather
from search.plan import price_strategies
from search.result import Priced
from tests.launchers.ask import package

pytestmark = pytest.mark.launchers

TITAN = (
    "llama3/config_registry.py::llama3_8b",
    "llama3/config_registry.py::llama3_70b",
    "llama3/config_registry.py::llama3_405b",
    "deepseek_v3/config_registry.py::deepseek_v3_16b",
    "deepseek_v3/config_registry.py::deepseek_v3_671b",
    "qwen3/config_registry.py::qwen3_0_6b",
    "qwen3/config_registry.py::qwen3_1_7b",
    "qwen3/config_registry.py::qwen3_14b",
    "qwen3/config_registry.py::qwen3_32b",
    "qwen3/config_registry.py::qwen3_30b_a3b",
    "gpt_oss/config_registry.py::gpt_oss_20b",
    "gpt_oss/config_registry.py::gpt_oss_120b",
)
"""torchtitan 0.3.0: under ``torchtitan/models``."""
MAXTEXT = (
    "gpu/models/llama2_7b.yml",
    "gpu/models/llama2_70b.yml",
    "gpu/models/llama3_8b.yml",
    "gpu/models/llama3_70b.yml",
    "gpu/models/llama3.1_405b.yml",
    "gpu/models/mixtral_8x7b.yml",
    "gpu/models/mixtral_8x1b.yml",
    "tpu/v5p/llama2_70b.sh",
)
"""MaxText 0.2.5: under ``maxtext/configs``."""
BRIDGE = (
    "llama/h100/llama3.py::llama3_8b_pretrain_2gpu_h100_bf16_config",
    "llama/h100/llama3.py::llama3_8b_pretrain_32gpu_h100_bf16_64k_config",
    "llama/h100/llama3.py::llama3_70b_pretrain_32gpu_h100_bf16_config",
    "llama/h100/llama3.py::llama3_70b_pretrain_256gpu_h100_bf16_64k_config",
    "llama/h100/llama3.py::llama31_8b_pretrain_2gpu_h100_bf16_config",
    "llama/h100/llama3.py::llama31_70b_pretrain_32gpu_h100_bf16_config",
    "llama/h100/llama3.py::llama31_405b_pretrain_256gpu_h100_bf16_config",
    "llama/h100/llama2.py::llama2_7b_pretrain_2gpu_h100_bf16_config",
    "deepseek/h100/deepseek_v2.py::deepseek_v2_lite_pretrain_8gpu_h100_bf16_config",
    "deepseek/h100/deepseek_v2.py::deepseek_v2_pretrain_128gpu_h100_bf16_config",
    "deepseek/h100/deepseek_v3.py::deepseek_v3_pretrain_1024gpu_h100_bf16_config",
    "gemma/h100/gemma2.py::gemma2_9b_pretrain_8gpu_h100_bf16_config",
    "gemma/h100/gemma2.py::gemma2_27b_pretrain_16gpu_h100_bf16_config",
    "gpt/h100/gpt3_175b.py::gpt3_175b_pretrain_32gpu_h100_bf16_config",
    "gpt_oss/h100/gpt_oss.py::gpt_oss_20b_pretrain_16gpu_h100_bf16_config",
    "gpt_oss/h100/gpt_oss.py::gpt_oss_120b_pretrain_64gpu_h100_bf16_config",
    "kimi/h100/kimi_k2.py::kimi_k2_pretrain_512gpu_h100_bf16_config",
    "qwen/h100/qwen2.py::qwen25_7b_pretrain_2gpu_h100_bf16_config",
    "qwen/h100/qwen2.py::qwen25_72b_pretrain_32gpu_h100_bf16_config",
    "qwen/h100/qwen3.py::qwen3_8b_pretrain_16gpu_h100_bf16_config",
    "qwen/h100/qwen3.py::qwen3_32b_pretrain_16gpu_h100_bf16_config",
    "qwen/h100/qwen3_moe.py::qwen3_30b_a3b_pretrain_16gpu_h100_bf16_config",
    "qwen/h100/qwen3_moe.py::qwen3_235b_a22b_pretrain_256gpu_h100_bf16_config",
)
"""Megatron-Bridge 0.6.2: under ``megatron/bridge/recipes``."""
DEEPSPEED = tuple(f"template_zero{stage}.json" for stage in range(4))
"""DeepSpeed 0.19.8: under ``deepspeed/autotuning/config_templates``; it names no model."""


PLACES = {
    "torchtitan": ("torchtitan", "models"),
    "deepspeed": ("deepspeed", "autotuning/config_templates"),
    "maxtext": ("maxtext", "configs"),
    "megatron-bridge": ("megatron.bridge", "recipes"),
}
"""Packages, and where in them the recipes are."""


def root(launcher: str) -> Path:
    """Where a launcher's package keeps its recipes; skips where it is not installed."""
    name, inside = PLACES[launcher]
    return package(name) / inside


def predicted(recipe: str, model: str | None = None, gpus: int | None = None) -> Priced:
    """What the recipe costs on H100."""
    found = complete(gather([recipe]), model, gpus)
    return price_strategies(found.problem, [found.strategy], found.job.constants)[0]


RECIPES = tuple(
    (launcher, recipe)
    for launcher, recipes in (
        ("torchtitan", TITAN),
        ("megatron-bridge", BRIDGE),
        ("maxtext", MAXTEXT),
    )
    for recipe in recipes
)


@pytest.mark.parametrize(("launcher", "recipe"), RECIPES)
def test_a_published_recipe_has_a_price(launcher: str, recipe: str) -> None:
    """A time and a memory that a step of this model can have, on the GPUs in its name."""
    row = predicted(f"{root(launcher)}/{recipe}")

    assert 1e-3 < row.step_time_s < 1e4
    assert 2**30 < row.memory_bytes < 2**41
    assert 0 < row.mfu < 0.75
    gpus = re.search(r"_(\d+)gpu_", recipe)
    assert row.world_size == (int(gpus.group(1)) if gpus else row.world_size)


@pytest.mark.parametrize("template", DEEPSPEED)
def test_a_template_without_a_model_needs_its_name_only(template: str) -> None:
    """DeepSpeed's templates are priced once ``--model`` is said."""
    row = predicted(f"{root('deepspeed')}/{template}", "8b", 16)

    assert row.world_size == 16
    assert row.strategy.sharding.label == ("none", "zero1", "zero2", "zero3")[int(template[13])]
