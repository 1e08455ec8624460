"""Kubernetes JobSet: one indexed job, a pod for each node, found by name."""

from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.kubernetes import IMAGE, SHARED_MEMORY, document, gpu_resource
from autopar.launchers.wrappers.node import job_name, nodes_of, self_contained, with_files

FILE = "jobset.yaml"
_JOB = "nodes"


def wrap(emission: Emission, plan: Plan) -> Emission:
    """The files and ``jobset.yaml``, which carries them."""
    nodes, name = nodes_of(plan), job_name(plan)
    first = f"{name}-{_JOB}-0-0.{name}"
    head = f'export NODE_RANK="$JOB_COMPLETION_INDEX" MASTER_ADDR={first}'
    gpus = {gpu_resource(plan): nodes.gpus_per_node}
    container = {
        "name": "train",
        "image": IMAGE,
        "command": ["bash", "-c"],
        "args": [self_contained(emission, plan, head)],
        "ports": [{"containerPort": 29500}],
        "resources": {"requests": dict(gpus), "limits": dict(gpus)},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 (NCCL's place)
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}],
    }
    job = {
        "parallelism": nodes.n_nodes,
        "completions": nodes.n_nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": pod},
    }
    values = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},
            "failurePolicy": {"maxRestarts": 3},
            "replicatedJobs": [{"name": _JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }
    return with_files(emission, {FILE: document(emission, plan, values)})
