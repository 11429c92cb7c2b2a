"""The container's way in (environment.md): pip brings what is missing, and leaves PyTorch and Transformer Engine alone.

No container and no network: pip resolves against wheels that hold nothing but the metadata of what is installed here,
in an environment that sees a container's packages as `--system-site-packages` shows them.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.machine import PROJECT

CONTAINERS = {  # what these images of nvcr.io/nvidia/pytorch hold
    "25.06": {"torch": "2.8.0a0+5228986c39.nv25.6", "transformer_engine": "2.4.0+3cd6870"},
    "25.12": {"torch": "2.10.0a0+b4e4ee81d3.nv25.12", "transformer_engine": "2.10.0+769ed778"},
    "26.06": {"torch": "2.13.0a0+8145d630e8.nv26.6.54250401", "transformer_engine": "2.16.0+4220403e"},
}


def described(name: str, version: str, *needs: str) -> str:
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return head + "".join(f"Requires-Dist: {need}\n" for need in needs)


def write_wheel(folder: Path, metadata: str) -> None:
    name, version = (re.search(rf"^{key}: (.+)$", metadata, re.M)[1].strip() for key in ("Name", "Version"))
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")


def install(folder: Path, name: str, version: str, *needs: str) -> None:
    """What tells pip that a distribution is there."""
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(described(name, version, *needs))
    (information / "INSTALLER").write_text("pip\n")
    (information / "RECORD").write_text("")


@pytest.fixture(scope="module")
def project() -> list[str]:
    """The needs of this project, without its extras and groups: what `pip install -e .` is after."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, project) -> Path:
    """All that is installed here, PyTorch among it, as wheels of metadata; and this project."""
    folder = tmp_path_factory.mktemp("wheels")
    for distribution in importlib.metadata.distributions():
        if distribution.name != "megatron-tour":
            write_wheel(folder, distribution.read_text("METADATA"))
    write_wheel(folder, described("megatron-tour", "0.1.0", *project))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """`.container` of the page, with its pip."""
    pytest.importorskip("ensurepip", reason="this Python makes no environments: Debian's python3-venv is missing")
    folder = tmp_path_factory.mktemp("environment") / ".container"
    venv.create(folder, with_pip=True)
    return folder


def resolved(environment: Path, container: Path, wheels: Path, wanted: str) -> dict[str, str]:
    """What pip would install for `wanted` beside the packages in `container`: name → version."""
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "container.pth").write_text(f"{container}\n")
    report = container.with_suffix(".json")
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", wheels]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        [*pip, "--report", report, wanted],
        env=variables | {"PIP_CONFIG_FILE": os.devnull}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {canonicalize_name(entry["name"]): entry["version"] for entry in made}


def test_the_containers_pytorch_and_transformer_engine_stay(environment, wheels, project, tmp_path):
    container = tmp_path / "container"
    for name, version in CONTAINERS["26.06"].items():
        install(container, name, version, *["torch>=2.1"] * (name != "torch"))
    installed = resolved(environment, container, wheels, "megatron-tour")
    assert not [name for name in installed if name.startswith(("torch", "triton", "transformer-engine", "nvidia-cu"))]
    pins = dict(need.split("==") for need in project)
    assert {name: installed.get(canonicalize_name(name)) for name in pins} == pins


def test_where_there_is_no_pytorch_pip_brings_one(environment, wheels, tmp_path):
    """So the test above would see it."""
    (tmp_path / "container").mkdir()
    assert "torch" in resolved(environment, tmp_path / "container", wheels, "megatron-core")


@pytest.mark.parametrize("release", CONTAINERS)
def test_other_releases_have_a_pytorch_that_all_of_ours_take(release):
    needs = [Requirement(need) for d in importlib.metadata.distributions() for need in d.requires or []]
    needs = [need for need in needs if need.name in CONTAINERS[release] and not (need.marker and "extra" in str(need))]
    assert needs, "megatron-core at least asks for torch"
    for need in needs:
        assert need.specifier.contains(CONTAINERS[release][need.name], prereleases=True), need


def test_the_page_says_so():
    page = (PROJECT / "environment.md").read_text()
    page = page[page.index("## The container") : page.index("## Verified versions")]
    assert "nvcr.io/nvidia/pytorch:26.06-py3" in page
    assert "python -m venv --system-site-packages --without-pip .container" in page
    assert "PIP_CONSTRAINT= .container/bin/python -m pip install -e ." in page
