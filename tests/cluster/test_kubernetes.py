"""A TrainJob: what is written is what Kubeflow's own models read, and nothing else."""

import pytest
import yaml
from kubeflow_trainer_api import models

from helpers import cluster, launch, recipes
from helpers.machine import described
from helpers.recipes import preflight

NODES = recipes.Nodes(count=2, processes_per_node=2)
RECIPE = recipes.gpt3_345m().scaled_to("cpu").with_(processes=4, micro_batch_size=2)
ASKED = {"image": "registry.example/megatron-tour:1", "claim": "runs"}


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "runs" / "gpt3_345m_small" / "20260301-101500"
    folder.mkdir(parents=True)
    (folder / "command.sh").write_text("true\n")
    return folder


def written(directory, **changes):
    options = ASKED | {"mounted_at": directory.parents[1]} | changes
    return cluster.trainjob(RECIPE, NODES, directory, **options)


def test_kubeflows_models_read_every_field_that_is_written(directory):
    text = repr(written(directory))
    job = yaml.safe_load(text)
    read = models.TrainerV1alpha1TrainJob.from_dict(job)
    assert read.to_dict() == job, "a field that the models do not know would be lost on the way"
    assert read.metadata.name == "gpt3-345m-small-20260301-101500"
    assert (read.spec.trainer.num_nodes, read.spec.trainer.num_proc_per_node) == (2, 2)
    assert read.spec.trainer.command == ["bash", f"{directory}/command.sh"]
    assert (directory / "trainjob.yaml").read_text() == text


def test_the_pods_see_the_runs_under_the_path_that_they_have_here(directory):
    patch = written(directory).described["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]
    pod = patch["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"runs": str(directory.parents[1]), "shared-memory": "/dev/shm"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


def test_a_node_with_gpus_is_asked_for_one_a_rank(directory):
    node = described("2 × H100 80GB")
    recipe = recipes.gpt3_345m().with_(processes=4, global_batch_size=128)
    job = cluster.trainjob(recipe, NODES, directory, machine=node, **ASKED, mounted_at=directory.parents[1])
    assert job.described["spec"]["trainer"]["resourcesPerNode"] == {"limits": {"nvidia.com/gpu": 2}}
    assert "resourcesPerNode" not in written(directory).described["spec"]["trainer"]


def test_what_no_pod_could_start_is_refused(directory, tmp_path):
    with pytest.raises(ValueError, match="does not lie in .*/elsewhere"):
        written(directory, mounted_at=tmp_path / "elsewhere")
    with pytest.raises(preflight.PreflightError, match="torchrun starts 2 × 2 = 4 ranks"):
        cluster.trainjob(RECIPE.with_(processes=2), NODES, directory, **ASKED, mounted_at=tmp_path)
    (directory / "command.sh").unlink()
    with pytest.raises(ValueError, match="launch.by_hand"):
        written(directory)


def test_what_by_hand_writes_is_what_a_pod_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path / "runs"))
    lines = launch.by_hand(RECIPE, None, NODES)
    job = written(lines.run_directory, mounted_at=tmp_path)
    assert job.described["spec"]["trainer"]["command"] == ["bash", f"{lines.run_directory}/command.sh"]
    assert lines.lines[1] == f"PET_MASTER_ADDR=<host 0> PET_NODE_RANK=1 bash {lines.run_directory}/command.sh"
    script = (lines.run_directory / "command.sh").read_text()
    assert 'PET_MASTER_PORT="${PET_MASTER_PORT:-29500}"' in script  # Kubeflow's own wins
