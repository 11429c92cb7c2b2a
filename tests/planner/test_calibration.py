"""This machine's rates: from what the ranks told, kept, asked for again."""

import json
import math
from dataclasses import replace

import pytest
from machines import EIGHT_H200, ONE_H200

from helpers import planner, recipes
from helpers.machine import CPU, here
from helpers.planner import calibration, lines
from helpers.recipes import costs
from helpers.recipes.costs import Link, Products, rates

FASTER = {"torch": "2.11.0", "megatron-core": "0.19.2"}
OLDER = FASTER | {"megatron-core": "0.19.1"}


def along(start: float, rate: float, *work: float) -> list[list[float]]:
    return [[one, start + one / rate] for one in work]


def told(**changes) -> dict:
    """What ranks of a CPU with round rates would tell."""
    case = {"samples": 1, "heads": 2, "length": 100, "channels": 72}  # 20,000 scores, as wide as 200 channels
    return {
        "products": {"fp32": along(1e-5, 5e10, 1e6, 1e7, 1e8), "bf16": along(1e-5, 1e9, 1e6, 1e7)},
        "elementwise": along(0.0, 1e10, 1e6, 3e6),
        "attention": [
            case | {"dropout": 0.0, "forward": 4e-4, "backward": 8e-4},
            case | {"dropout": 0.1, "forward": 6e-4, "backward": 8e-4},
        ],
        "dropout": [1e6, 1.9e-3],
        "kernel": 0.0,
        "floor": {"seconds": 0.020, "launches": 800},
        "links": [[2, *point] for point in along(3e-4, 1e9, 1e4, 1e5, 1e6)],
        "steps": [0.5, 0.2, *[0.060] * 9, 0.4],
    } | changes


@pytest.fixture
def measured_from(monkeypatch, tmp_path):
    """Calibrations are read from `told()` in the place of a launch; the list has one entry a measurement."""
    monkeypatch.setenv("MEGATRON_TOUR_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "here", lambda: CPU)
    monkeypatch.setattr(calibration, "_versions", lambda: FASTER)
    launched = []

    def ranks(script, count, *flags, **options):
        launched.append((script, count))
        return f"[rank 0] {calibration.MARK}{json.dumps(told())}\n"

    monkeypatch.setattr(calibration.launch, "ranks", ranks)
    return launched


def from_told(machine=CPU, **changes):
    recipe = calibration.small_run(machine)
    return recipe, calibration.from_measurements(told(**changes), recipe, machine)


def test_a_line_is_found_again():
    points = along(2e-5, 3e10, 1e6, 1e7, 1e9)
    assert lines.start(points) == pytest.approx(2e-5)
    assert lines.rate(points, 2e-5) == pytest.approx(3e10)
    assert lines.start([(1.0, 1.0), (2.0, 1.5), (4.0, 5.0)]) == 0.0


def test_rates_are_those_behind_the_times():
    _, found = from_told()
    assert found.machine == "2-core CPU"
    assert found.products["fp32"] == Products(pytest.approx(5e10), pytest.approx(1e-5))
    assert found.bandwidth == pytest.approx(1e10)
    assert (found.scores, found.scores_backward) == (pytest.approx(1e-10), pytest.approx(2e-10))
    assert found.random_score == pytest.approx(5e-9)  # the mean of 10 ns forward and none backward
    assert found.random == pytest.approx(1.9e-9 - 9 / 1e10)
    assert found.links == {2: Link(pytest.approx(3e-4), pytest.approx(1e9))}
    assert found.launch > 0 and found.kernel == 0


def test_the_calibration_predicts_the_run_that_it_comes_from():
    recipe, found = from_told()
    assert costs.step(recipe, CPU, found).seconds == pytest.approx(0.060)
    _, quick = from_told(steps=[0.001] * 12)
    assert quick.step == 0.0


def test_a_busier_floor_is_a_dearer_launch():
    launches = [from_told(floor={"seconds": seconds, "launches": 800})[1].launch for seconds in (0.001, 0.02, 0.04)]
    assert launches == sorted(launches) and launches[0] < launches[2]


def test_on_gpus_a_launch_is_the_floor_by_its_launches_and_one_gpu_borrows_its_links():
    case = {
        "samples": 1,
        "heads": 32,
        "length": 8192,
        "channels": 128,
        "dropout": 0.0,
        "forward": 1e-3,
        "backward": 3e-3,
    }
    gpu = {
        "products": {"bf16": along(1e-5, 7e14, 1e10, 1e12), "fp8": along(2e-5, 1.4e15, 1e11, 1e12)},
        "elementwise": along(0.0, 4e12, 1e9),
        "attention": [case, case, case | {"dropout": 0.1, "forward": 1.2e-3}],
        "dropout": [1e8, 2e-4],
        "kernel": 2e-6,
        "floor": {"seconds": 0.02, "launches": 250},
    }
    _, one = from_told(ONE_H200, **gpu, links=[])
    assert one.launch == pytest.approx(8e-5) and one.kernel == 2e-6 and one.machine == "NVIDIA H200"
    assert one.links == rates.recorded("h200").links and "one GPU sends nothing" in one.sources[0]
    both = [[ranks, *point] for ranks in (2, 4, 8) for point in along(2e-5, 3e11 / ranks, 1e6, 1e8)]
    _, eight = from_told(EIGHT_H200, **gpu, links=both)
    assert sorted(eight.links) == [2, 4, 8] and eight.link(3) == eight.links[4] and eight.sources == ()
    assert eight.links[8].bandwidth == pytest.approx(3e11 / 8)


def test_it_is_measured_once_and_kept_under_its_versions(measured_from, tmp_path, capsys):
    assert planner.calibrated() is None
    first = planner.calibrate()
    assert measured_from == [("calibration", 2)]
    assert planner.calibrate() == planner.calibrated() == first and len(measured_from) == 1
    (kept,) = (tmp_path / "calibration").iterdir()
    assert kept.name == "2-core-cpu@torch-2.11.0@megatron-core-0.19.2.json"
    planner.calibrate(force=True)
    assert len(measured_from) == 2
    assert "damaged" not in capsys.readouterr().out


def test_one_of_other_versions_is_named_and_measured_again(measured_from, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "_versions", lambda: OLDER)
    planner.calibrate()
    monkeypatch.setattr(calibration, "_versions", lambda: FASTER)
    capsys.readouterr()
    assert planner.calibrated().versions == OLDER
    told = "The kept calibration was made with megatron-core 0.19.1, and here is megatron-core 0.19.2."
    assert capsys.readouterr().out == f"{told} planner.calibrate() measures again.\n"
    assert planner.calibrate().versions == FASTER and len(measured_from) == 2
    assert told in capsys.readouterr().out
    assert planner.calibrated().versions == FASTER and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "JSONDecodeError"),
        (lambda text: "", "JSONDecodeError"),
        (lambda text: "[]", "TypeError"),
        (lambda text: text.replace('"bandwidth"', '"width"'), "TypeError"),
        (lambda text: text.replace('"bandwidth": 1', '"bandwidth": -1'), "not above zero"),
        (lambda text: text.replace('"bandwidth": 1', '"bandwidth": "1"'), "JSONDecodeError"),
    ],
)
def test_a_damaged_one_is_told_and_measured_again(measured_from, tmp_path, capsys, damage, reason):
    whole = planner.calibrate()
    (kept,) = (tmp_path / "calibration").iterdir()
    kept.write_text(damage(kept.read_text()))
    assert planner.calibrated() is None
    said = capsys.readouterr().out
    assert f"The kept calibration {kept} is damaged" in said and reason in said
    assert planner.calibrate().links == whole.links and len(measured_from) == 2
    assert planner.calibrated() is not None


def test_a_record_is_what_was_measured(tmp_path):
    _, found = from_told()
    path = calibration.record(found, "some-gpu", tmp_path)
    assert path == tmp_path / "some-gpu" / "calibration" / "rates.json"
    assert rates.Rates.from_json(json.loads(path.read_text())) == found


def test_it_shows_itself():
    _, found = from_told()
    for shown in (repr(found), found._repr_html_()):
        for words in (
            "2-core CPU",
            "GEMMs in fp32",
            "50 GFLOP/s after 10 µs",
            "10 GB/s",
            "collectives, 2 ranks",
            "torch",
        ):
            assert words in shown


def test_more_ranks_than_cores_take_as_long_as_the_cores_need():
    _, found = from_told()
    recipe = calibration.small_run(CPU)
    one, two, eight = (costs.step(recipe.with_(processes=n, global_batch_size=n), CPU, found).parts for n in (1, 2, 8))
    assert one["cores shared"] == two["cores shared"] == 0.0 < eight["cores shared"]
    roomy = replace(CPU, cpu_count=8)
    assert costs.step(recipe.with_(processes=8, global_batch_size=8), roomy, found).parts["cores shared"] == 0.0


def test_a_cpu_hides_no_collective_and_runs_its_functions_operation_by_operation():
    _, found = from_told()
    recipe = recipes.gpt3_345m().scaled_to("cpu")
    split = recipe.with_(tensor_parallel=2)
    once = 2 * 0.5 * 512 * 128 * 4 / found.links[2].bandwidth + found.links[2].start  # an all-reduce
    assert costs.step(split, CPU, found).parts["TP collectives"] == pytest.approx(2 * 4 * 4 * once)
    logits = 2 * 512 * 4096
    assert costs.step(recipe, CPU, found).parts["loss"] == pytest.approx(logits * 40 / found.bandwidth)
    wider = recipe.with_(ffn_hidden_size=1024)
    gelu = 2 * 4 * 512 * 512 * 4 * (23 + 45 + 1) / found.bandwidth  # 512 more; 1 for the gradient of their bias
    unfused = 12 * 2 * 4 * 2 * 128 * 512 / found.bandwidth  # weights' gradients added up after their products
    grown, before = (costs.step(one, CPU, found).parts["norms, elementwise"] for one in (wider, recipe))
    assert grown - before == pytest.approx(gelu + unfused, rel=1e-3)


def test_a_cpu_of_which_nothing_is_known_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(rates, "recorded", lambda label: None)
    with pytest.raises(ValueError, match=r"No CPU was measured yet: planner.calibrate\(\) measures this one"):
        costs.of(CPU)


@pytest.mark.train
def test_this_machine_is_measured():
    """Really: what a layer does here in a second has a sane size, and a larger model takes longer."""
    found = planner.calibrate()
    assert found.versions["torch"] and found.sources[0].startswith("measured on 20")
    for one in found.products.values():
        assert 1e8 < one.flops < 1e16 and 0 <= one.start < 1e-2
    assert 1e8 < found.bandwidth < 1e14
    assert 1e-17 < found.scores < 1e-8 and 1e-17 < found.scores_backward < 1e-8
    assert 0 <= found.random < 1e-6 and 0 <= found.random_score < 1e-6
    assert 0 <= found.kernel < 1e-3 and 0 < found.launch < 1e-2 and 0 <= found.step < 10
    assert all(0 <= link.start < 1 and 1e6 < link.bandwidth < 1e13 for link in found.links.values())
    assert planner.calibrated() == found
    recipe = calibration.small_run(here())
    small, large = (costs.step(recipe.with_(num_layers=layers), here(), found).seconds for layers in (4, 8))
    assert 0 < small < large < math.inf
