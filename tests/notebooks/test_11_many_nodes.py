"""Page 11 executed whole, and what its runs left: two hosts, and a job whose node died, equal one machine."""

import re

import nbformat
import pytest
from notebook_pages import runs_whole
from two_nodes import logged, needs_hosts, needs_slurm

from helpers import cluster, runs
from helpers.lessons import wires
from helpers.processes import control

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return runs_whole(__file__, tmp_path_factory.mktemp("runs"), trains="many_nodes")


@pytest.fixture(scope="module")
def trained(executed):
    """The runs of the page in the order of their starts; the first is of one host."""
    return [runs.load(log.parent) for log in sorted(executed.parent.glob("runs/many_nodes/*/log.txt"))]


def text_of(executed, cell: str) -> str:
    """What a cell printed and what it returned."""
    (found,) = [one for one in nbformat.read(executed, 4).cells if one.id == cell]
    return "\n".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in found.outputs)


def test_notebook_11_runs_whole(executed):
    assert executed.is_file()


@needs_hosts
def test_two_hosts_train_what_one_host_trains(trained):
    alone, (two_hosts,) = trained[0], [run for run in trained if (run.path / cluster.hosts.SCRIPT).is_file()]
    assert wires.printed(two_hosts) == wires.printed(alone) and len(wires.printed(alone)) == 12
    assert logged(two_hosts) == logged(alone)
    assert "[rank 0]" in two_hosts.log_text and "[rank 1]" in two_hosts.log_text


@needs_hosts
def test_two_hosts_send_what_the_formula_says_in_the_time_that_the_wire_takes(executed):
    rows = re.findall(r"^(MB a step, counted|MB a step, by formula|ms a step, 100 Mbit/s) +(.*)$",
                      text_of(executed, "code-09"), re.M)  # fmt: skip
    counted, expected, slow = ([float(one.replace(",", "")) for one in row.split()] for _, row in rows)
    assert len(counted) == len(wires.LAYOUTS) and counted == pytest.approx(expected, rel=0.05)
    assert all(ms > 0.9 * sent / 2 * 8 / 100 * 1e3 for ms, sent in zip(slow, counted, strict=True))


@needs_slurm
def test_a_job_whose_node_dies_goes_on_by_itself_and_equals_one_of_one_machine(executed, trained):
    alone, (job,) = trained[0], [run for run in trained if (run.path / "job.sh").is_file()]
    assert job.state == "finished" and control.read_status(job.path)["launch"] == 2 and not control.members(job.path)
    assert re.search(r"queued again, to go on after step (4|8): node n2 failed", job.log_text)
    assert logged(job) == logged(alone) and len(job.losses) == 12
    assert {"[rank 0] ", "[rank 1] "} <= {line[:9] for line in job.log_text.splitlines()}
    assert len(runs.read_result(job.path / "result.json").losses) == 12  # the batch node wrote it
    told = text_of(executed, "code-16")
    for words in ("node n2 failed", "expected to start at", "going on by itself", "no process of the run is left"):
        assert words in told
