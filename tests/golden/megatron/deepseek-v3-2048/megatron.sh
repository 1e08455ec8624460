#!/usr/bin/env bash
# Written by autopar for Megatron-LM (megatron-core 0.19.2).
# deepseek-v3 on 2048 x h800: global batch 16384, sequence 4096.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.
# Model: deepseek-v3
set -euo pipefail

NNODES=${NNODES:-256}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-29500}
MEGATRON_LM=${MEGATRON_LM:-.}
if [ ! -f "$MEGATRON_LM/pretrain_gpt.py" ]; then
    echo "no $MEGATRON_LM/pretrain_gpt.py: set MEGATRON_LM to a checkout of Megatron-LM" >&2
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

MODEL_ARGS=(
    --num-layers 61
    --hidden-size 7168
    --ffn-hidden-size 18432
    --num-attention-heads 128
    --multi-latent-attention
    --q-lora-rank 1536
    --kv-lora-rank 512
    --qk-head-dim 128
    --qk-pos-emb-head-dim 64
    --v-head-dim 128
    --qk-layernorm
    --swiglu
    --normalization RMSNorm
    --position-embedding-type rope
    --max-position-embeddings 163840
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --make-vocab-size-divisible-by 128
    --hidden-dropout 0.0
    --attention-dropout 0.0
    --num-experts 256
    --moe-layer-freq '([0]*3+[1]*58)'
    --moe-ffn-hidden-size 2048
    --moe-router-topk 8
    --moe-router-num-groups 8
    --moe-router-group-topk 4
    --moe-router-score-function sigmoid
    --moe-router-enable-expert-bias
    --moe-router-dtype fp32
    --moe-shared-expert-intermediate-size 2048
    --moe-grouped-gemm
    --moe-token-dispatcher-type alltoall
    --moe-permute-fusion
    --mtp-num-layers 1
)
DATA_ARGS=(
    --seq-length 4096
    --mock-data
    --tokenizer-type NullTokenizer
    --vocab-size 129280
    --no-create-attention-mask-in-dataloader
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 1
    --pipeline-model-parallel-size 16
    --pipeline-model-parallel-layout 'Et|(t*2|)*30mL'
    --context-parallel-size 1
    --expert-model-parallel-size 64
    --expert-tensor-parallel-size 1
    --micro-batch-size 1
    --global-batch-size 16384
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
    --recompute-granularity selective
    --recompute-modules layernorm mla_up_proj
)
OPTIMIZER_ARGS=(
    --optimizer adam
    --bf16
    --fp8-format hybrid
    --fp8-recipe tensorwise
)
TRAINING_ARGS=(
    --lr 1e-4
    --min-lr 1e-5
    --lr-decay-style cosine
    --clip-grad 1.0
    --train-iters 100
    --eval-iters 0
    --log-interval 1
    --log-throughput
)
exec torchrun "${LAUNCH_ARGS[@]}" "$MEGATRON_LM/pretrain_gpt.py" \
    "${MODEL_ARGS[@]}" \
    "${DATA_ARGS[@]}" \
    "${PARALLEL_ARGS[@]}" \
    "${OPTIMIZER_ARGS[@]}" \
    "${TRAINING_ARGS[@]}" \
    "$@"
