#!/usr/bin/env bash
# Written by autopar for Megatron-LM (megatron-core 0.19.2).
# mixtral-8x22b on 128 x h100-sxm: global batch 1024, sequence 4096.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.
# Model: mixtral-8x22b
set -euo pipefail

NNODES=${NNODES:-16}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-29500}
MEGATRON_LM=${MEGATRON_LM:-.}
if [ ! -f "$MEGATRON_LM/pretrain_gpt.py" ]; then
    echo "no $MEGATRON_LM/pretrain_gpt.py: set MEGATRON_LM to a checkout of Megatron-LM" >&2
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

MODEL_ARGS=(
    --num-layers 56
    --hidden-size 6144
    --num-attention-heads 48
    --kv-channels 128
    --group-query-attention
    --num-query-groups 8
    --swiglu
    --normalization RMSNorm
    --position-embedding-type rope
    --max-position-embeddings 65536
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --make-vocab-size-divisible-by 128
    --hidden-dropout 0.0
    --attention-dropout 0.0
    --num-experts 8
    --moe-ffn-hidden-size 16384
    --moe-router-topk 2
    --moe-router-dtype fp32
    --moe-grouped-gemm
    --moe-token-dispatcher-type alltoall
    --moe-permute-fusion
)
DATA_ARGS=(
    --seq-length 4096
    --mock-data
    --tokenizer-type NullTokenizer
    --vocab-size 32000
    --no-create-attention-mask-in-dataloader
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 2
    --sequence-parallel
    --pipeline-model-parallel-size 4
    --num-virtual-stages-per-pipeline-rank 7
    --context-parallel-size 1
    --expert-model-parallel-size 8
    --expert-tensor-parallel-size 1
    --micro-batch-size 1
    --global-batch-size 1024
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
    --overlap-moe-expert-parallel-comm
)
OPTIMIZER_ARGS=(
    --optimizer adam
    --bf16
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
