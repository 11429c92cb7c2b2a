import shutil
import subprocess

import pytest

from helpers.machine import shared_memory


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system of memory, with options, at a folder of the test's own."""

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting takes root")

    yield mount
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_this_machine_shares_memory_and_keeps_nothing_of_the_look():
    before = set(shared_memory.PLACE.iterdir())
    assert shared_memory.why_unusable() is None and set(shared_memory.PLACE.iterdir()) <= before


@pytest.mark.parametrize(("options", "why"), [("size=64k", "No space left on device"), ("ro", "Read-only file system")])
def test_shared_memory_that_is_full_or_closed_is_told(mounted, options, why, tmp_path, monkeypatch):
    mounted(options)
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path)
    if options != "ro":
        assert shared_memory.why_unusable() is None
        (tmp_path / "filler").write_bytes(b"x" * 64 * 2**10)
    assert shared_memory.why_unusable() == f"{tmp_path}: {why}"
