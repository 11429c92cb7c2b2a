"""The functions that a page shows are those of the file."""

import pytest

from helpers.lessons import source
from helpers.machine import megatron_source


def test_functions_come_whole_in_the_order_asked_for():
    code = source.functions("pretrain_gpt.py", "loss_function", "main").data
    assert code.startswith("def loss_function(loss_mask") and '{"lm loss":' in code
    assert code.index("@record") < code.index("def main()") and code.endswith("lifetime.leave()")


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="has no function evaluate. There are: build_datasets"):
        source.functions("pretrain_gpt.py", "evaluate")


def test_pieces_of_megatron_have_its_line_numbers():
    file = "core/pipeline_parallel/schedules.py"
    code = source.megatron(file, ("def forward_step(", 2), ("def backward_step(", 1)).data
    first, *_, last = [line for line in code.splitlines() if line][1:]
    lines = megatron_source(file).read_text().splitlines()
    for shown in (first, last):
        number, _, words = shown.strip().partition("  ")
        assert lines[int(number) - 1] == words
    assert code.startswith(f"# megatron/{file}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope.py",), "has no file 'nope.py'"),
        (("core/nope.py",), "has no file"),
        (("core/optimizer_param_scheduler.py", "class"), "takes pairs"),
        (("core/optimizer_param_scheduler.py", ("no such words", 3)), "no line with 'no such words'"),
    ],
)
def test_what_megatron_does_not_have_is_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        source.megatron(*arguments)
