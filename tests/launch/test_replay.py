"""Deep pipelines, replayed: Megatron's order and transfers, and the waits that were asked for."""

import pytest

from helpers import launch
from helpers.runs.pipeline_order import Work, orders

SLOW = {"forward_ms": (5, 5, 12), "backward_ms": (10, 10, 24)}


@pytest.mark.train
def test_a_replay_has_megatrons_order_and_the_times_that_were_asked_for():
    even, halves, uneven = launch.replay_pipeline(
        3,
        {"micro_batches": 6, "forward_ms": 5, "backward_ms": 10},
        {"micro_batches": 6, "forward_ms": 5, "backward_ms": 10, "virtual_pipeline_chunks": 2},
        {"micro_batches": 6, "name": "the last is slow", **SLOW},
    )
    for schedule in (even, halves, uneven):
        assert (schedule.kind, schedule.stages, schedule.micro_batches) == ("replay", 3, 6)
        found = [
            [Work(one.direction, one.micro_batch, one.chunk) for one in schedule.passes if one.stage == stage]
            for stage in range(3)
        ]
        assert found == orders(3, 6, schedule.chunks)
    assert [even.held(stage) for stage in range(3)] == [3, 2, 1]
    assert all(even.busy_ms(stage) >= 6 * 15 for stage in range(3))
    assert even.span_ms >= (6 + 2) * 15 and even.bubble >= even.formula == pytest.approx(2 / 6)
    assert uneven.name == "the last is slow" and uneven.busy_ms(2) >= 6 * 36


@pytest.mark.parametrize(
    ("stages", "settings", "words"),
    [
        (1, [{"micro_batches": 2}], "2 to 8 stages"),
        (9, [{"micro_batches": 2}], "2 to 8 stages"),
        (4, [], "needs a pipeline to replay"),
        (4, [{}], "micro_batches=None"),
        (4, [{"micro_batches": True}], "micro_batches=True"),
        (4, [{"micro_batches": 65}], "from 1 to 64"),
        (4, [{"micro_batches": 6, "virtual_pipeline_chunks": 2}], "groups of 4"),
        (4, [{"micro_batches": 8, "forward_ms": (1, 2)}], "one for each of 4 stages"),
        (4, [{"micro_batches": 8, "backward_ms": -1}], "milliseconds up to 1,000"),
        (4, [{"micro_batches": 8, "backward_ms": float("nan")}], "milliseconds up to 1,000"),
        (4, [{"micro_batches": 8, "sleep": 1}], "no sleep"),
    ],
)
def test_what_cannot_be_replayed_is_told_in_words(stages, settings, words):
    with pytest.raises(ValueError, match=words):
        launch.replay_pipeline(stages, *settings)
