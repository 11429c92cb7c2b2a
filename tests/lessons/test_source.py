"""The functions that a page shows are those of the file."""

import pytest

from helpers.lessons import source


def test_functions_come_whole_in_the_order_asked_for():
    code = source.functions("pretrain_gpt.py", "loss_function", "main").data
    assert code.startswith("def loss_function(loss_mask") and '{"lm loss":' in code
    assert code.index("@record") < code.index("def main()") and code.endswith("lifetime.leave()")


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="has no function train. There are: build_datasets"):
        source.functions("pretrain_gpt.py", "train")
