"""The picture language: colours that stay apart, a look for each run, words in three greys of one file."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from colour_blindness import confused

from helpers.show import style

HELPERS = Path(style.__file__).parents[1]


@pytest.mark.parametrize("palette", [style.COLOURS, style.MEMORY_PARTS], ids=["dimensions", "memory"])
def test_colours_stay_apart_for_colour_blind_readers(palette):
    assert confused(palette) == []


def test_every_run_has_a_colour_and_a_marker_of_its_own():
    looks = [style.run_style(i) for i in range(len(style.RUN_COLOURS))]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == len(looks)
    assert style.run_style(0, recorded=True)["linestyle"] == ":" != looks[0]["linestyle"]


def test_a_figure_of_several_machines_names_each_kind_of_gpu_once():
    many = ("recorded on NVIDIA H200", "recorded on 2 × NVIDIA H200", "8 × NVIDIA H100 80GB HBM3")
    several = [SimpleNamespace(measured_on=name) for name in many]
    assert style.places(several) == "recorded on NVIDIA H200; NVIDIA H100 80GB HBM3"
    assert style.places([SimpleNamespace(measured_on="2-core CPU")] * 2) == "2-core CPU"


@pytest.mark.parametrize("colour", ["INK", "GREY", "FAINT"])
def test_the_colours_of_words_stand_in_the_style_file_alone(colour):
    """Looked for in all of helpers/: a figure takes them from the style."""
    value = getattr(style, colour)
    owners = [path for path in HELPERS.rglob("*.py") if value.casefold() in path.read_text().casefold()]
    assert owners == [Path(style.__file__)]
