"""`job.sh`: what Slurm is asked for, in words that a learner can read and a shell takes as they are meant."""

import re
import subprocess

import pytest
from machines import EIGHT_H200

from helpers import cluster, launch
from helpers.machine import CPU
from helpers.recipes import preflight


def written(folder, recipe, machine=CPU, **asked) -> str:
    on = cluster.slurm(**{"nodes": 2, "time": "4:00:00"} | asked)
    path = on.write(folder, recipe, machine, keep=2)
    subprocess.run(["bash", "-n", path], check=True)
    return path.read_text()


@pytest.fixture
def two_ranks(tiny_recipe):
    return tiny_recipe.with_(processes=2, save_interval=10)


def test_what_is_asked_for_stands_in_the_header(tmp_path, two_ranks):
    asked = {"partition": "gpu", "account": "team-7", "qos": "long", "constraint": "h100&ib", "cpus_per_node": 96}
    lines = written(tmp_path, two_ranks, **asked, extra=("--reservation=course", "--mem=0")).splitlines()
    header = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert lines[0] == "#!/usr/bin/env bash"
    for option in (
        "--job-name=tiny", "--partition=gpu", "--account=team-7", "--qos=long", "--constraint=h100&ib", "--nodes=2",
        "--ntasks-per-node=1", "--cpus-per-task=96", "--time=4:00:00", "--reservation=course", "--mem=0", "--requeue",
        "--signal=USR1@120", f'--output="{tmp_path}/log.txt"', "--open-mode=append",
    ):  # fmt: skip
        assert option in header, option
    assert "--exclusive" not in header and not [option for option in header if "gpus" in option]
    assert all(len(line) <= 120 or "-m helpers" in line or str(tmp_path) in line for line in lines)


def test_gpus_are_asked_for_as_many_as_there_are_ranks_on_a_node(tmp_path, two_ranks):
    lines = written(tmp_path, two_ranks.with_(processes=16), machine=EIGHT_H200).splitlines()
    assert "#SBATCH --gpus-per-node=8" in lines and "#SBATCH --exclusive" in lines


def test_without_checkpoints_nothing_is_told_to_save(tmp_path, two_ranks):
    unsaved = two_ranks.with_(save_interval=None)
    assert "--signal" not in written(tmp_path, unsaved) and cluster.slurm(nodes=2, time="1").flags(unsaved) == {}
    flags = [flag.words for flag in cluster.slurm(nodes=2, time="1").flags(two_ranks)["job"]]
    assert ["--exit-signal-handler"] in map(list, flags)


def test_ranks_run_in_a_container_and_the_supervisor_outside(tmp_path, two_ranks):
    image = "nvcr.io#nvidia/pytorch:25.10-py3"
    with pytest.raises(ValueError, match="container_image"):
        cluster.slurm(nodes=2, time="1", container_image="an image; rm -r ~")
    with pytest.raises(ValueError, match="0 is no limit at all"):
        cluster.slurm(nodes=2, time="00:00:00")
    image = "/images/pytorch+25.10.sqsh"
    text = written(tmp_path, two_ranks, container_image=image, container_mounts="/shared:/shared")
    srun = next(line for line in text.splitlines() if line.lstrip().startswith("srun "))
    assert f"--container-image={image} --container-mounts=/shared:/shared python -m helpers.processes.keeper" in srun
    assert not re.search(r"^python -m helpers\.processes\.batch", text, re.MULTILINE)


def test_an_odd_folder_is_quoted_for_sbatch_and_for_the_shell(tmp_path, two_ranks):
    folder = tmp_path / "a \"b\" 100% $(touch x) 'c'"
    folder.mkdir()
    text = written(folder, two_ranks)
    assert '#SBATCH --output="' in text and '\\"b\\" 100%% $(touch x)' in text
    run = next(line for line in text.splitlines() if line.startswith("run="))
    done = subprocess.run(["bash", "-c", f'{run}; printf %s "$run"'], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == str(folder) and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"nodes": 0}, r"^cluster.slurm\(nodes=0\): it takes a whole number from 1"),
        ({"time": "soon"}, r'"30" minutes, "4:00:00"'),
        ({"time": "1:99:99"}, "minutes and seconds up to 59"),
        ({"time": "90:60"}, "minutes and seconds up to 59"),
        ({"time": "1-24"}, "hours of a day up to 23"),
        ({"time": 30}, "it takes a text"),
        (
            {"node": 2},
            r"^cluster.slurm: it takes no 'node'. Did you mean nodes\?",
        ),
        ({"gpus": 8}, r"argument 'gpus'. It takes \(nodes, time, partition=None"),
        ({"partition": "gpu\n#SBATCH --uid=0"}, "one word"),
        ({"account": "a b"}, "one word"),
        ({"extra": "--mem=0"}, r"a list, each of it a text. One alone is put in brackets: \[it\]"),
        ({"extra": ("mem=0",)}, "no option of sbatch"),
        ({"extra": ("--mem=0\nrm x",)}, "no option of sbatch"),
        ({"starts": 0}, "whole number from 1 to 100"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(odd, words):
    with pytest.raises((TypeError, ValueError), match=words):
        cluster.slurm(**{"nodes": 2, "time": "30"} | odd)


def test_without_a_cluster_nothing_is_begun(two_ranks, tmp_path, monkeypatch):
    """A folder that no job ever ran in was the latest run."""
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(preflight.PreflightError) as refused:
        launch.train(two_ranks, None, machine=CPU, on=cluster.slurm(nodes=2, time="10"), runs_dir=tmp_path / "runs")
    assert re.search("No slurmctld answers here. sinfo|not found: this is no login node", str(refused.value))
    assert "cluster.OwnSlurm().start()" in str(refused.value) and not (tmp_path / "runs").exists()


def test_ranks_that_nodes_cannot_share_are_refused(tiny_recipe):
    with pytest.raises(ValueError, match="3 ranks cannot be shared evenly by 2 nodes"):
        cluster.slurm(nodes=2, time="30").nodes_of(tiny_recipe.with_(processes=3))


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("4:00:00", 14_400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-0:00:05", 86_405),
    ],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(time, seconds):
    assert cluster.slurm(nodes=2, time=time).time_seconds == seconds
