#!/usr/bin/env bash
# Written by autopar for Megatron-Bridge 0.6.2.
# deepseek-v3 on 2048 x h800: global batch 16384, sequence 4096.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.
set -euo pipefail

NNODES=${NNODES:-256}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-29500}
MEGATRON_BRIDGE=${MEGATRON_BRIDGE:-.}
if [ ! -f "$MEGATRON_BRIDGE/scripts/training/run_recipe.py" ]; then
    echo "no $MEGATRON_BRIDGE/scripts/training/run_recipe.py: set MEGATRON_BRIDGE to a checkout of Megatron-Bridge" >&2
    exit 2
fi
export CUDA_DEVICE_MAX_CONNECTIONS=1

LAUNCH_ARGS=(
    --nnodes "$NNODES"
    --nproc-per-node "$GPUS_PER_NODE"
    --node-rank "$NODE_RANK"
    --master-addr "$MASTER_ADDR"
    --master-port "$MASTER_PORT"
)

OVERRIDES=(
    model.num_layers=61
    model.hidden_size=7168
    model.ffn_hidden_size=18432
    model.num_attention_heads=128
    model.multi_latent_attention=true
    model.q_lora_rank=1536
    model.kv_lora_rank=512
    model.qk_head_dim=128
    model.qk_pos_emb_head_dim=64
    model.v_head_dim=128
    model.qk_layernorm=true
    model.normalization=RMSNorm
    model.position_embedding_type=rope
    model.add_bias_linear=false
    model.add_qkv_bias=false
    model.make_vocab_size_divisible_by=128
    model.hidden_dropout=0.0
    model.attention_dropout=0.0
    'model.moe_layer_freq=[0,0,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]'
    model.moe_ffn_hidden_size=2048
    model.moe_router_topk=8
    model.moe_router_num_groups=8
    model.moe_router_group_topk=4
    model.moe_router_score_function=sigmoid
    model.moe_router_enable_expert_bias=true
    model.moe_router_dtype=fp32
    model.moe_shared_expert_intermediate_size=2048
    model.moe_shared_expert_gate=false
    model.moe_grouped_gemm=true
    model.moe_token_dispatcher_type=alltoall
    model.moe_permute_fusion=true
    model.mtp_num_layers=1
    model.vocab_size=129280
    model.seq_length=4096
    model.num_moe_experts=256
    model.gated_linear_unit=true
    model.share_embeddings_and_output_weights=false
    model.tensor_model_parallel_size=1
    model.sequence_parallel=false
    model.pipeline_model_parallel_size=16
    'model.pipeline_model_parallel_layout='"'"'Et|(t*2|)*30mL'"'"''
    model.account_for_embedding_in_pipeline_split=false
    model.account_for_loss_in_pipeline_split=false
    model.overlap_p2p_comm=true
    model.context_parallel_size=1
    model.cp_comm_type=p2p
    model.hierarchical_context_parallel_sizes=null
    model.expert_model_parallel_size=64
    model.expert_tensor_parallel_size=1
    model.init_model_with_meta_device=false
    model.tp_comm_overlap=false
    model.overlap_moe_expert_parallel_comm=false
    model.recompute_granularity=selective
    model.recompute_method=null
    model.recompute_num_layers=null
    'model.recompute_modules=[layernorm,mla_up_proj]'
    model.cpu_offloading_num_layers=0
    model.fine_grained_activation_offloading=false
    model.offload_modules=null
    model.activation_offload_fraction=1.0
    model.virtual_pipeline_model_parallel_size=null
    model.num_layers_in_first_pipeline_stage=null
    model.num_layers_in_last_pipeline_stage=null
    train.micro_batch_size=1
    train.global_batch_size=16384
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
    mixed_precision=bf16_with_fp8_current_scaling_mixed
)
exec torchrun "${LAUNCH_ARGS[@]}" "$MEGATRON_BRIDGE/scripts/training/run_recipe.py" \
    --recipe deepseek_v3_pretrain_config \
    "${OVERRIDES[@]}" \
    "$@"
