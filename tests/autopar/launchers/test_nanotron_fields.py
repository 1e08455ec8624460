"""nanotron cannot be installed from the index, so its fields and checks are written out here.

The table is of ``nanotron.config`` at commit 2411b022: fields with their types, those
without a default marked as needed.  Unknown fields and wrong types are refused there.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import yaml

from autopar.launchers import dossier
from autopar.launchers.nanotron import files as nanotron
from autopar.launchers.plan import Plan
from cost_models.specs.errors import SpecError
from search.rules import Problem, broken_rules
from tests.launchers.random_layouts import random_plan

Field = tuple[type, bool]

FIELDS: Mapping[str, Mapping[str, Field]] = {
    "general": {"project": (str, True), "run": (str, False), "seed": (int, False)},
    "parallelism": {
        "dp": (int, True),
        "pp": (int, True),
        "tp": (int, True),
        "pp_engine": (str, False),
        "tp_mode": (str, False),
        "tp_linear_async_communication": (bool, False),
        "recompute_layer": (bool, False),
        "moe_layer_recompute": (bool, False),
        "tp_recompute_allgather": (bool, False),
        "expert_parallel_size": (int, False),
        "context_parallel_size": (int, False),
    },
    "model": {
        "model_config": (dict, True),
        "init_method": (dict, True),
        "dtype": (str, False),
        "make_vocab_size_divisible_by": (int, False),
        "ddp_bucket_cap_mb": (int, False),
    },
    "tokenizer": {
        "tokenizer_name_or_path": (str, False),
        "tokenizer_revision": (str, False),
        "tokenizer_max_length": (int, False),
    },
    "tokens": {
        "sequence_length": (int, True),
        "train_steps": (int, True),
        "micro_batch_size": (int, True),
        "batch_accumulation_per_replica": (int, True),
        "val_check_interval": (int, False),
        "limit_val_batches": (int, False),
        "limit_test_batches": (int, False),
    },
    "optimizer": {
        "optimizer_factory": (dict, True),
        "zero_stage": (int, True),
        "weight_decay": (float, True),
        "clip_grad": (float, True),
        "accumulate_grad_in_fp32": (bool, True),
        "learning_rate_scheduler": (dict, True),
        "weight_decay_exclude_named_params": (list, False),
    },
    "logging": {
        "log_level": (str, False),
        "log_level_replica": (str, False),
        "iteration_step_info_interval": (int, False),
    },
    "model.model_config": {
        "bos_token_id": (int, False),
        "eos_token_id": (int, False),
        "hidden_act": (str, False),
        "hidden_size": (int, False),
        "intermediate_size": (int, False),
        "is_qwen2_config": (bool, True),
        "max_position_embeddings": (int, False),
        "num_attention_heads": (int, False),
        "num_hidden_layers": (int, False),
        "num_key_value_heads": (int, False),
        "rope_theta": (float, False),
        "tie_word_embeddings": (bool, False),
        "vocab_size": (int, False),
        "attention_bias": (bool, False),
        "_attn_implementation": (str, False),
    },
    "optimizer.learning_rate_scheduler": {
        "learning_rate": (float, True),
        "lr_warmup_steps": (int, False),
        "lr_warmup_style": (str, False),
        "lr_decay_style": (str, False),
        "lr_decay_steps": (int, False),
        "lr_decay_starting_step": (int, False),
        "min_decay_lr": (float, False),
    },
    "optimizer.optimizer_factory": {
        "adam_eps": (float, True),
        "adam_beta1": (float, True),
        "adam_beta2": (float, True),
        "torch_adam_is_fused": (bool, True),
        "name": (str, False),
    },
    "model.init_method": {"std": (float, True)},
}
"""Sections, and sections of sections, with the type of each field and whether it is needed."""

UNCHECKED = {
    "tp_divides_kv_heads": "key-value heads are only asked to be as many as tp",
    "cp_splits_sequence": "the data loader cuts the sequence",
    "sp_splits_sequence": "shows in the first reduce-scatter",
    "launcher_has_order": "the rank grid is fixed, whatever is asked for",
    "hsdp_splits_group": "nanotron has no hsdp",
    "tp_divides_mlp": "shows when weights are laid out",
    "weights_gathered_ahead": "no field for it: weights are gathered after the step",
}
"""Rules of ours that nanotron finds out at run time, or never."""


def complaints(text: str, world: int) -> list[str]:
    """What nanotron's config and its checks at start would refuse."""
    values: dict[str, Any] = yaml.safe_load(text)
    found = [f"unknown section {name}" for name in values if name not in FIELDS]
    for path, fields in FIELDS.items():
        section: Any = values
        for key in path.split("."):
            section = section[key]
        found += [f"unknown field {path}.{key}" for key in section if key not in fields]
        found += [f"no {path}.{k}" for k, (_, needed) in fields.items() if needed > (k in section)]
        found += [
            f"type of {path}.{key}"
            for key, value in section.items()
            if type(value) is not fields[key][0]
        ]
    p, m = values["parallelism"], values["model"]["model_config"]
    ranks = p["dp"] * p["tp"] * p["pp"] * p["context_parallel_size"]
    if ranks != world or p["expert_parallel_size"] != 1:
        found.append("ranks do not fill the world")
    if m["num_attention_heads"] % p["tp"] or m["num_key_value_heads"] < p["tp"]:
        found.append("heads and tp")
    if m["num_attention_heads"] % m["num_key_value_heads"]:
        found.append("heads and key-value heads")
    if p["pp_engine"] not in ("1f1b", "afab"):
        found.append("pp_engine")
    if p["tp_mode"] not in ("ALL_REDUCE", "REDUCE_SCATTER"):
        found.append("tp_mode")
    if values["optimizer"]["zero_stage"] not in (0, 1):
        found.append("zero_stage")
    return found


def test_random_plans_both_ways() -> None:
    """Legal plans pass nanotron's checks; those that do not pass break a rule of ours."""
    emitted: list[tuple[Plan, list[str], list[str]]] = []
    seed = 0
    while len(emitted) < 200:
        plan = random_plan(Random(seed), "nanotron")  # noqa: S311
        seed += 1
        problem = Problem.of(plan.model, plan.cluster, plan.workload, "nanotron")
        broken = [rule.name for rule, _ in broken_rules(problem, plan.strategy)]
        try:
            text = dossier("nanotron").emit(plan).files[nanotron.CONFIG]
        except SpecError:
            continue
        emitted.append((plan, broken, complaints(text, plan.strategy.world_size)))

    assert not [(plan.strategy, why) for plan, broken, why in emitted if why and not broken]
    unexplained = {rule for _, broken, why in emitted if not why for rule in broken}
    assert unexplained <= set(UNCHECKED)
    assert sum(not broken for _, broken, _ in emitted) > 60
