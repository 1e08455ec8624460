#!/usr/bin/env bash
# Written by autopar for Megatron-Bridge 0.6.2.
# mixtral-8x22b on 128 x h100-sxm: global batch 1024, sequence 4096.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.
set -euo pipefail

NNODES=${NNODES:-16}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-29500}
MEGATRON_BRIDGE=${MEGATRON_BRIDGE:-.}
if [ ! -f "$MEGATRON_BRIDGE/scripts/training/run_recipe.py" ]; then
    echo "no $MEGATRON_BRIDGE/scripts/training/run_recipe.py: set MEGATRON_BRIDGE to a checkout of Megatron-Bridge" >&2
    exit 2
fi
export CUDA_DEVICE_MAX_CONNECTIONS=32

LAUNCH_ARGS=(
    --nnodes "$NNODES"
    --nproc-per-node "$GPUS_PER_NODE"
    --node-rank "$NODE_RANK"
    --master-addr "$MASTER_ADDR"
    --master-port "$MASTER_PORT"
)

OVERRIDES=(
    model.num_layers=56
    model.hidden_size=6144
    model.num_attention_heads=48
    model.kv_channels=128
    model.num_query_groups=8
    model.qk_layernorm=false
    model.normalization=RMSNorm
    model.position_embedding_type=rope
    model.add_bias_linear=false
    model.add_qkv_bias=false
    model.make_vocab_size_divisible_by=128
    model.hidden_dropout=0.0
    model.attention_dropout=0.0
    model.moe_ffn_hidden_size=16384
    model.moe_router_topk=2
    model.moe_router_dtype=fp32
    model.moe_grouped_gemm=true
    model.moe_token_dispatcher_type=alltoall
    model.moe_permute_fusion=true
    model.vocab_size=32000
    model.seq_length=4096
    model.num_moe_experts=8
    model.gated_linear_unit=true
    model.share_embeddings_and_output_weights=false
    model.tensor_model_parallel_size=2
    model.sequence_parallel=true
    model.pipeline_model_parallel_size=4
    model.pipeline_model_parallel_layout=null
    model.account_for_embedding_in_pipeline_split=false
    model.account_for_loss_in_pipeline_split=false
    model.overlap_p2p_comm=true
    model.context_parallel_size=1
    model.cp_comm_type=p2p
    model.hierarchical_context_parallel_sizes=null
    model.expert_model_parallel_size=8
    model.expert_tensor_parallel_size=1
    model.init_model_with_meta_device=false
    model.tp_comm_overlap=false
    model.overlap_moe_expert_parallel_comm=true
    model.recompute_granularity=null
    model.recompute_method=null
    model.recompute_num_layers=null
    model.recompute_modules=null
    model.cpu_offloading_num_layers=0
    model.fine_grained_activation_offloading=false
    model.offload_modules=null
    model.activation_offload_fraction=1.0
    model.virtual_pipeline_model_parallel_size=7
    model.num_layers_in_first_pipeline_stage=null
    model.num_layers_in_last_pipeline_stage=null
    train.micro_batch_size=1
    train.global_batch_size=1024
    dist.use_tp_pp_dp_mapping=false
    dist.use_torch_fsdp2=false
    ddp.use_distributed_optimizer=true
    ddp.use_megatron_fsdp=false
    ddp.data_parallel_sharding_strategy=optim_grads_params
    ddp.num_distributed_optimizer_instances=1
    ddp.overlap_grad_reduce=true
    ddp.overlap_param_gather=true
    checkpoint.ckpt_format=torch_dist
    optimizer.optimizer=adam
    optimizer.use_precision_aware_optimizer=false
    optimizer.optimizer_cpu_offload=false
    optimizer.optimizer_offload_fraction=1.0
    dataset.seq_length=4096
    dist.use_megatron_fsdp=false
    optimizer.use_distributed_optimizer=true
    model.batch_p2p_comm=false
    model.cpu_offloading=false
    comm_overlap=null
    mixed_precision=bf16_mixed
)
exec torchrun "${LAUNCH_ARGS[@]}" "$MEGATRON_BRIDGE/scripts/training/run_recipe.py" \
    --recipe vanilla_gpt_pretrain_config \
    "${OVERRIDES[@]}" \
    "$@"
