"""Kubeflow Trainer v2: a TrainJob on the ``torch-distributed`` runtime."""

from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.kubernetes import IMAGE, document, gpu_resource
from autopar.launchers.wrappers.node import job_name, nodes_of, self_contained, with_files

FILE = "trainjob.yaml"
_HEAD = (
    'export NODE_RANK="$PET_NODE_RANK" MASTER_ADDR="$PET_MASTER_ADDR" '
    'MASTER_PORT="$PET_MASTER_PORT"'
)


def wrap(emission: Emission, plan: Plan) -> Emission:
    """The files and ``trainjob.yaml``, which carries them."""
    nodes = nodes_of(plan)
    gpus = {gpu_resource(plan): nodes.gpus_per_node}
    values = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": job_name(plan)},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": "torch-distributed",
            },
            "trainer": {
                "image": IMAGE,
                "numNodes": nodes.n_nodes,
                "numProcPerNode": nodes.gpus_per_node,
                "command": ["bash", "-c"],
                "args": [self_contained(emission, plan, _HEAD)],
                "resourcesPerNode": {"requests": dict(gpus), "limits": dict(gpus)},
            },
        },
    }
    return with_files(emission, {FILE: document(emission, plan, values)})
