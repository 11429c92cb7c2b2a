"""What is here: hardware, places, the variables of a device, Megatron imported quietly."""

from helpers.machine.descriptions import described
from helpers.machine.hardware import CPU, GPU, Machine, UnsupportedPlatform, driver_versions, for_ranks, here
from helpers.machine.megatron import megatron_definitions, megatron_source, quietly
from helpers.machine.places import PROJECT, cache_root, given, given_folder, runs_root, short_path
