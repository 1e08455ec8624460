#!/usr/bin/env bash
# Written by autopar for Megatron-LM (megatron-core 0.19.2).
# llama3-70b on 512 x h100-sxm: global batch 1024, sequence 8192.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.
# Model: llama3-70b
set -euo pipefail

NNODES=${NNODES:-64}
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
    --num-layers 80
    --hidden-size 8192
    --ffn-hidden-size 28672
    --num-attention-heads 64
    --kv-channels 128
    --group-query-attention
    --num-query-groups 8
    --swiglu
    --normalization RMSNorm
    --position-embedding-type rope
    --max-position-embeddings 8192
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --make-vocab-size-divisible-by 128
    --hidden-dropout 0.0
    --attention-dropout 0.0
)
DATA_ARGS=(
    --seq-length 8192
    --mock-data
    --tokenizer-type NullTokenizer
    --vocab-size 128256
    --no-create-attention-mask-in-dataloader
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 8
    --sequence-parallel
    --pipeline-model-parallel-size 4
    --num-virtual-stages-per-pipeline-rank 5
    --context-parallel-size 1
    --micro-batch-size 1
    --global-batch-size 1024
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
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
