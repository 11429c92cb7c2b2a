"""A run on Kubernetes: a TrainJob of Kubeflow Trainer v2, which starts the run's `command.sh` in a pod a node.

Its torch runtime sets PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT in each pod
(kubeflow/trainer, pkg/runtime/framework/plugins/torch/torch.go), so that `command.sh` is the one of plain hosts. We
hold the file against the schema; no cluster has run it yet.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from helpers.machine import Machine, here
from helpers.recipes import Nodes, Recipe, preflight
from helpers.show.arguments import checked

NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")  # of Kubernetes: RFC 1123
LONGEST_NAME = 50  # a pod's has some words more, and 63 characters at most
MANAGER = "megatron-tour.example/trainjob"  # who asks for the patch, as a domain and a path
CONTAINER = "node"  # what the runtime torch-distributed calls its job, and the container in it
SHARED_MEMORY = "64Gi"  # of a node's memory at most: a container's own /dev/shm has 64 MB, too little for NCCL


@dataclass(frozen=True, repr=False)
class TrainJob:
    """What `kubectl apply -f trainjob.yaml` takes; shown, it is that file."""

    path: Path
    described: dict = field(repr=False, hash=False)

    def __repr__(self) -> str:
        return self.path.read_text()


@checked
def trainjob(
    recipe: Recipe,
    nodes: Nodes,
    run_directory: Path | str,
    *,
    image: str,
    claim: str,
    mounted_at: Path | str,
    runtime: str = "torch-distributed",
    machine: Machine | None = None,
) -> TrainJob:
    """Write `trainjob.yaml` beside the `command.sh` of a run directory (`launch.by_hand` writes that one).

    Args:
        image: a container with this project and its Python where `command.sh` looks for them.
        claim: the PersistentVolumeClaim that holds run directory and corpus, for all pods to write (ReadWriteMany).
        mounted_at: the folder that it is mounted at: run directory and corpus have the paths that they have here.
        runtime: the cluster's ClusterTrainingRuntime.
        machine: a node; with GPUs each pod asks for as many as it has ranks.

    Raises:
        preflight.PreflightError: the recipe's ranks are not those of `nodes`.
        ValueError: the run directory does not lie where the volume is mounted, or there is no `command.sh` in it.
    """
    import yaml

    directory, mounted = Path(run_directory).resolve(), Path(mounted_at)
    preflight.refuse(preflight.check(recipe, None, machine or here(), nodes=nodes))
    if not (directory / "command.sh").is_file():
        raise ValueError(f"{directory} has no command.sh: launch.by_hand(recipe, data, nodes) writes it.")
    if not directory.is_relative_to(mounted):
        raise ValueError(f"{directory} does not lie in {mounted}, where the pods see the volume: mounted_at=…")
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": _name(recipe.name, directory.name)},
        "spec": {
            "runtimeRef": {"name": runtime},
            "trainer": _trainer(directory, nodes, image, machine or here()),
            "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _volumes(claim, str(mounted))}],
        },
    }
    path = directory / "trainjob.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return TrainJob(path, job)


def _trainer(directory: Path, nodes: Nodes, image: str, machine: Machine) -> dict:
    each = nodes.processes_per_node
    trainer = {"numNodes": nodes.count, "numProcPerNode": each, "image": image}
    trainer["command"] = ["bash", str(directory / "command.sh")]
    if machine.device == "cuda":
        trainer["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": each}}
    return trainer


def _volumes(claim: str, mounted: str) -> dict:
    """The volume of runs and corpora, and room in /dev/shm, for every pod."""
    mounts = [{"name": "runs", "mountPath": mounted}, {"name": "shared-memory", "mountPath": "/dev/shm"}]
    volumes = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
    ]
    pod = {"containers": [{"name": CONTAINER, "volumeMounts": mounts}], "volumes": volumes}
    job = {"name": CONTAINER, "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _name(recipe: str, time: str) -> str:
    words = NOT_IN_A_NAME.sub("-", f"{recipe[: LONGEST_NAME - len(time) - 1]}-{time}".lower())
    return words.strip("-") if words[0].isalpha() else f"run-{words}".strip("-")
