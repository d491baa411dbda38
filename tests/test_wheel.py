"""What somebody gets who installs the wheel and never sees the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"  # building leaves traces where it builds
    subprocess.run(["git", "clone", "-q", ROOT, copy], check=True)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, copy]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_no_link_of_its_page_leads_nowhere(wheel):
    text = next(wheel.glob("*.dist-info/METADATA")).read_text("utf-8")
    assert "reference implementation" in text
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets)


def test_it_has_the_comparisons_that_are_shipped(wheel, tmp_path):
    code = (
        "from skillsd.analysis.compare.matrix import load_matrix\nprint(load_matrix('comparisons/smoke.toml').preset)"
    )
    env = {"PYTHONPATH": str(wheel), "PATH": "/usr/bin"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.stdout == "sokoban-smoke\n", ran.stderr
    told = subprocess.run(
        [sys.executable, "-m", "skillsd", "compare", "none", "--out", tmp_path / "out"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 2
    assert "one_box_main, paper" in told.stderr
    assert not (tmp_path / "out").exists()
