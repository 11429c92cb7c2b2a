import megatron_parser
import pytest

from helpers.machine import megatron_flags


def test_they_are_those_of_megatrons_own_parser():
    """Read from the source in a second; six more are fields of its configurations that the parser leaves out."""
    known, real = megatron_flags.known(), megatron_parser.flags()
    assert real - known == set()
    assert len(known - real) < 10 < len(real)


def test_what_may_stand_behind_them_is_what_megatrons_own_parser_takes():
    """Where it is said at all: a few kinds and numbers of words are worked out when the parser is built."""
    real, open_ones = megatron_parser.arguments(), 0
    for flag, described in megatron_flags.described().items():
        takes = described.takes
        if flag in real:
            nargs, kind, choices = real[flag]
            open_ones += takes.words is None
            assert takes.words in (None, 1 if nargs is None else nargs), flag
            assert takes.words == 0 or takes.kind in (None, kind), flag
            assert not takes.choices or list(map(str, takes.choices)) == choices, flag
    assert open_ones < 40 < len(real)


@pytest.mark.parametrize(
    ("flag", "given", "why"),
    [
        ("--bf16", ["true"], "It is a switch: 'true' cannot stand behind it."),
        ("--num-experts", ["x"], "'x' is not a whole number."),
        ("--num-experts", [], "It takes 1 word, and here is none."),
        ("--num-experts", ["4", "8"], "It takes 1 word, and here are 2."),
        ("--lr", ["high"], "'high' is not a number."),
        ("--lr-decay-style", ["nope"], "'nope' is none of its choices: constant, linear, cosine, "),
        ("--empty-unused-memory-level", ["3"], "'3' is none of its choices: 0, 1, 2."),
        ("--rampup-batch-size", ["1", "2"], "It takes 3 words, and here are 2."),
        ("--bf16", [], None),
        ("--lr", ["3e-4"], None),
        ("--lr-decay-style", ["linear"], None),
        ("--recompute-modules", ["core_attn", "mlp"], None),
    ],
)
def test_what_the_parser_would_refuse_is_told(flag, given, why):
    told = megatron_flags.described()[flag].takes.why_not(given)
    assert told is None if why is None else told.startswith(why)


def test_a_flag_cut_short_is_known_by_its_only_completion():
    assert megatron_flags.whole("--tensorboard-d") == "--tensorboard-dir"
    assert megatron_flags.whole("--lr") == "--lr" and megatron_flags.whole("--lr-") == "--lr-"


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--num-layer", "--num-layers"),
        ("--fp-16", "--fp16"),
        ("--nope", None),
        ("--foo", None),
        ("--learning-rate", None),
        ("--", None),
    ],
)
def test_a_flag_that_resembles_none_is_not_advised_as_another(flag, nearest):
    assert megatron_flags.nearest(flag) == nearest
    assert megatron_flags.nearest("--ab-cd", {"--ab-ce", "--x"}) == "--ab-ce"
