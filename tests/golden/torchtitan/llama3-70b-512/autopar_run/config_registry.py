# Written by autopar for torchtitan 0.3.0.
# llama3-70b on 512 x h100-sxm: global batch 1024, sequence 8192.
# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64) per GPU; in brackets 80 % intervals.

from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.llama3 import model_registry
from torchtitan.models.llama3.config_registry import llama3_70b
from torchtitan.trainer import Trainer


def autopar_best() -> Trainer.Config:
    config = llama3_70b()
    config.model_spec = model_registry('70B')
    config.training.seq_len = 8192
    config.training.global_batch_size = 1024
    config.training.local_batch_size = 64
    config.training.enable_cpu_offload = False
    config.training.disable_cuda_graphs = True
    config.parallelism.data_parallel_replicate_degree = 2
    config.parallelism.data_parallel_shard_degree = 8
    config.parallelism.tensor_parallel_degree = 8
    config.parallelism.enable_sequence_parallel = True
    config.parallelism.context_parallel_degree = 1
    config.parallelism.expert_parallel_degree = 1
    config.parallelism.pipeline_parallel_degree = 4
    config.parallelism.fsdp_reshard_after_forward = 'always'
    config.parallelism.pipeline_parallel_schedule = 'Interleaved1F1B'
    config.parallelism.pipeline_parallel_microbatch_size = 1
    config.parallelism.pipeline_parallel_first_stage_less_layers = 0
    config.parallelism.pipeline_parallel_last_stage_less_layers = 0
    config.parallelism.pipeline_parallel_layers_per_stage = None
    config.compile.enable = True
    config.compile.components = ['model', 'loss']
    config.compile.enable_async_tensor_parallel = True
    config.activation_checkpoint = FullAC.Config()
    config.__post_init__()  # assignments skip the checks of the constructor
    return config
