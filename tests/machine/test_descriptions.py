"""Machines that are not here: what a few words describe, and what they cannot."""

import time

import pytest

from helpers.machine import data_sheets, described


def test_a_machine_is_described_by_a_few_words():
    machine = described("8 × H100 80GB", nodes=4, between_nodes_gbps=400)
    assert len(machine.gpus) == 32 and machine.nodes == 4 and machine.name == "4 × 8 × NVIDIA H100 80GB"
    assert machine.gpus[0].memory_bytes == pytest.approx(85.5e9, rel=0.001)  # nvidia-smi: 81,559 MiB
    assert machine.supports_fp8 and machine.gpus[0].peak_bf16_flops == 989e12
    assert described("H200") == described("1x H200") == described("1 × h200".upper())
    assert described("2 × A100 40GB").gpus[0].memory_bytes < described("2 × A100").gpus[0].memory_bytes
    assert described("8 A100 80GB") == described("8×a100")
    assert described("H100 × 8") == described("H100 80GB x8") == described("8 × NVIDIA H100 SXM5 80GB HBM3")
    assert described("2 nodes of 8 × H100", between_nodes_gbps=400) == described("8 × H100", 2, 400)
    assert described("8 × h100 pcie").gpus[0].peak_bf16_flops == 756e12


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("-3 × H100", {}, ["'-3 × H100' describes no machine"]),
        ("8.5 × H100", {}, ["describes no machine"]),
        ("2 × 8 × H100", {}, ["describes no machine", "nodes=2"]),
        ("8 × H100", {"nodes": 2, "between_nodes_gbps": True}, ["between_nodes_gbps=True"]),
        ("8 × H1000", {}, ["'H1000'", "Did you mean H100"]),
        ("8 × TPU v5", {}, ["'TPU V5'", "There are: GB300"]),
        ("8 × MI300X", {}, ["'MI300X'", "they are NVIDIA's. There are: GB300"]),
        ("8 × B100", {}, ["Did you mean B300 or B200?"]),
        ("8 × H100 banana", {}, ["'BANANA' says nothing here of an H100", "several nodes:"]),
        ("A100 PCIe", {}, ["'PCIE' says nothing here of an A100"]),
        ("two H100", {}, ["'TWO' says nothing"]),
        ("H100 H200", {}, ["'H100' says nothing here of an H200"]),
        ("RTX 4090 Laptop", {}, ["No data sheet"]),
        ("2 nodes of 8 × H100", {}, ["nodes=2 needs the network's rate"]),
        ("2 nodes of 8 × H100", {"nodes": 3, "between_nodes_gbps": 400}, ["with nodes=3", "Say it once"]),
        ("1" * 5000 + " × H100", {}, ["describes no machine"]),
        ("", {}, ["describes no machine"]),
        (8, {}, ["8 describes no machine"]),
        ("0 × H100", {}, ["0 GPUs a node", "whole number from 1"]),
        ("8 × H100", {"nodes": 2.5, "between_nodes_gbps": 400}, ["2.5 nodes"]),
        ("8 × H100", {"nodes": 10**6, "between_nodes_gbps": 400}, ["1000000 nodes", "100,000"]),
        ("8 × H100", {"nodes": 4}, ["nodes=4", "between_nodes_gbps=400"]),
        ("8 × H100", {"between_nodes_gbps": 400}, ["one node"]),
        ("8 × H100", {"nodes": 2, "between_nodes_gbps": -1}, ["between_nodes_gbps=-1"]),
        ("8 × H100", {"nodes": 2, "between_nodes_gbps": "fast"}, ["between_nodes_gbps='fast'"]),
        ("8 × H100 40GB", {}, ["H100 with 40 GB", "80"]),
    ],
)
def test_what_describes_no_machine_is_told_in_one_sentence(text, more, words):
    began = time.perf_counter()
    with pytest.raises(ValueError) as told:
        described(text, **more)
    assert time.perf_counter() - began < 10  # a hang
    assert all(word in str(told.value) for word in words), str(told.value)


def test_every_sheet_is_found_by_its_own_name_and_no_variant_by_anothers():
    for sheet in data_sheets.SHEETS:
        assert data_sheets.find(f"NVIDIA {sheet.name}") is sheet, sheet.name
    assert data_sheets.find("NVIDIA H100 80GB HBM3").name == "H100"
    assert data_sheets.find("NVIDIA A100-SXM4-40GB").name == "A100 40GB"
    assert data_sheets.find("NVIDIA RTX 4090 Laptop GPU") is None
