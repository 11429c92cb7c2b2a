import megatron_parser

from helpers.machine import megatron_flags


def test_they_are_those_of_megatrons_own_parser():
    """Read from the source in a second; six more are fields of its configurations that the parser leaves out."""
    known, real = megatron_flags.known(), megatron_parser.flags()
    assert real - known == set()
    assert len(known - real) < 10 < len(real)
