# Written by autopar for torchtitan 0.3.0.
# mixtral-8x22b on 128 x h100-sxm: global batch 512, sequence 4096.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.

from dataclasses import replace
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.common import CosSinRoPE
from torchtitan.models.qwen3 import _build_qwen3_moe_layers, model_registry
from torchtitan.models.qwen3.config_registry import qwen3_30b_a3b
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer


MODEL = {'name': 'mixtral-8x22b',
 'n_layers': 56,
 'dim': 6144,
 'n_heads': 48,
 'n_kv_heads': 8,
 'head_dim': 128,
 'hidden_dim': 16384,
 'vocab_size': 32000,
 'max_seq_len': 65536,
 'tied': False,
 'qk_norm': False,
 'num_experts': 8,
 'top_k': 2}


def _model_spec(converters=()) -> ModelSpec:
    spec = model_registry('30B-A3B')
    model, dim, vocabulary = spec.model, MODEL["dim"], MODEL["vocab_size"]
    model.dim, model.vocab_size = dim, vocabulary
    model.tok_embeddings = replace(
        model.tok_embeddings, num_embeddings=vocabulary, embedding_dim=dim
    )
    model.norm = replace(model.norm, normalized_shape=dim)
    model.lm_head = replace(
        model.lm_head, in_features=dim, out_features=vocabulary
    )
    model.layers = _build_qwen3_moe_layers(
        n_layers=MODEL["n_layers"],
        dim=dim,
        n_heads=MODEL["n_heads"],
        n_kv_heads=MODEL["n_kv_heads"],
        head_dim=MODEL["head_dim"],
        attn_backend="flex",
        rope=CosSinRoPE.Config(
            dim=MODEL["head_dim"], max_seq_len=MODEL["max_seq_len"], theta=1000000.0
        ),
        moe_hidden_dim=MODEL["hidden_dim"],
        num_experts=MODEL["num_experts"],
        top_k=MODEL["top_k"],
        moe_comm_backend="standard",
    )
    if not MODEL["qk_norm"]:
        for layer in model.layers:
            layer.attention.qk_norm = None
    for converter in converters:
        model = converter.build().convert(model)
    return replace(spec, model=model)


def autopar_best() -> Trainer.Config:
    config = qwen3_30b_a3b()
    config.model_spec = _model_spec()
    config.loss.loss_fn.global_vocab_size = MODEL["vocab_size"]
    config.training.seq_len = 4096
    config.training.global_batch_size = 512
    config.training.local_batch_size = 1
    config.training.enable_cpu_offload = False
    config.training.disable_cuda_graphs = True
    config.parallelism.data_parallel_replicate_degree = 1
    config.parallelism.data_parallel_shard_degree = 32
    config.parallelism.tensor_parallel_degree = 4
    config.parallelism.enable_sequence_parallel = True
    config.parallelism.context_parallel_degree = 1
    config.parallelism.expert_parallel_degree = 8
    config.parallelism.pipeline_parallel_degree = 1
    config.parallelism.fsdp_reshard_after_forward = 'always'
    config.compile.enable = True
    config.compile.components = ['model', 'loss']
    config.compile.enable_async_tensor_parallel = False
    config.activation_checkpoint = FullAC.Config()
    config.__post_init__()  # assignments skip the checks of the constructor
    return config
