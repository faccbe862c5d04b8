"""The arrows between folders, and what the project promises about itself."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ecosystem

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "ecosystem": {"analysis", "scenarios", "tests", "matplotlib"},
    "analysis": {"scenarios", "tests"},
    "scenarios": {"tests"},
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write absolute imports"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_point_one_way(folder):
    for file in (ROOT / folder).rglob("*.py"):
        tops = {name.partition(".")[0] for name in imports(file)}
        assert not tops & FORBIDDEN[folder], file


def test_the_theory_is_an_independent_witness():
    simulator = {
        f"ecosystem.{name}"
        for name in ("agents", "model", "engine", "lots", "recording", "running", "trajectory", "mixing")
    }
    for file in (ROOT / "analysis" / "theory").glob("*.py"):
        names = set(imports(file))
        assert not any(name.startswith(tuple(simulator)) for name in names), file
        assert not names & {"ecosystem.Ecosystem", "ecosystem.run", "ecosystem.Trajectory"}, file
        assert not {"mesa", "matplotlib"} & {name.partition(".")[0] for name in names}, file


def test_only_the_table_is_pandas():
    users = {
        file.name
        for file in (ROOT / "ecosystem").rglob("*.py")
        if any(name.partition(".")[0] == "pandas" for name in imports(file))
    }
    assert users == {"recording.py", "lots.py", "trajectory.py"}


def test_importing_the_package_is_cheap():
    script = (
        "import sys, ecosystem, ecosystem.sharing; print('mesa' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names():
    for name in ecosystem.__all__:
        assert getattr(ecosystem, name) is not None
    assert set(ecosystem.__all__) <= set(dir(ecosystem))
    with pytest.raises(AttributeError, match="no attribute"):
        ecosystem.nothing  # noqa: B018


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == ecosystem.__version__
    assert f"## {ecosystem.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {ecosystem.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    extras = project["optional-dependencies"].values()
    for need in [*project["dependencies"], *(need for extra in extras for need in extra)]:
        assert re.search(r">=|<", need), f"{need}: give a lower bound, or an upper one and why"


def test_readme_lists_every_scenario_script():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in (ROOT / "scenarios").glob("*.py"):
        if file.stem not in ("__init__", "common"):
            assert f"scenarios/{file.name}" in readme
