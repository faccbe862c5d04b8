import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import scenarios

FOLDER = Path(scenarios.__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_conclusion_holds(name):
    answer = import_module(f"scenarios.{name}").study(quick=True)
    assert answer.holds, answer.conclusion
    assert "±" in answer.conclusion or "95% interval" in answer.conclusion
    panels = [axes for axes in answer.figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in panels)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_its_conclusion_holds_in_full(name):
    answer = import_module(f"scenarios.{name}").study(quick=False)
    assert answer.holds, answer.conclusion


def test_runs_as_a_script(tmp_path):
    script = FOLDER / "tradeoffs.py"
    done = subprocess.run(
        [sys.executable, script, "--quick", "--out", tmp_path], capture_output=True, text=True, check=True
    )
    assert "of human diversity" in done.stdout
    assert (tmp_path / "tradeoffs.png").stat().st_size > 10_000
    assert (
        "fresh data"
        in subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, check=True
        ).stdout
    )
