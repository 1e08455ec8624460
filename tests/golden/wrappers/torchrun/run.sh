#!/usr/bin/env bash
# One node of 64: megatron-core 0.19.2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export NNODES=${NNODES:-64}
export GPUS_PER_NODE=${GPUS_PER_NODE:-8}
export NODE_RANK=${NODE_RANK:-0}
export MASTER_ADDR=${MASTER_ADDR:-localhost}
export MASTER_PORT=${MASTER_PORT:-29500}
exec bash megatron.sh "$@"
