"""What README.md and docs/ tell a reader to type is run, or at least understood."""

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import networkx as nx
import pytest

from analysis.cli import main
from analysis.design import Design
from analysis.whatif import read_plan
from ecosystem import Scenario

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def indented(page):
    """Blocks of lines that are indented by four, without that."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") + "\n" for block in found]


def one(found):
    """Options in brackets are given too, and N is a number."""
    return "1" if found[0] == "N" else ""


def typed():
    """Every line of a block that calls the command line."""
    for page in PAGES:
        for block in [*blocks(page, "sh"), *blocks(page, "bash"), *indented(page)]:
            for line in block.splitlines():
                if found := re.search(r"(?:^|/|&& )(ecosystem (?!=).*)$", line):
                    yield pytest.param(re.sub(r"[][]|(?<= )N\b", one, found[1]), id=f"{page.name}: {line}")


@pytest.mark.parametrize("line", list(typed()))
def test_commands_have_the_options_that_they_are_shown_with(line):
    name, *words = shlex.split(line.split(" | ")[0], comments=True)[1:]
    command = main.commands[name]
    command.make_context(name, words)  # raises for an option or a value that there is not


def test_the_python_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "README.md", "python")
    names = {}
    exec(block, names)
    assert names["trajectory"].final.shape == (8, 20, 1000)
    assert names["eco"].round == 1
    assert (tmp_path / "results" / "mine" / "table.parquet").is_file()


def test_the_scenario_files_of_the_readme(tmp_path):
    words = map("".join, itertools.product("abcdefghijklm", repeat=3))
    (tmp_path / "letters.txt").write_text(" ".join(words))
    nx.write_graphml(nx.path_graph(3), tmp_path / "partners.graphml")
    for block in blocks(ROOT / "README.md", "toml"):
        (tmp_path / "scenario.toml").write_text(block)
        assert len(Scenario.from_toml(tmp_path / "scenario.toml").settings()) > 10


def test_the_design_of_the_page_on_sweeps(tmp_path):
    (block,) = blocks(ROOT / "docs" / "sweeps.md", "toml")
    (tmp_path / "words.csv").write_text("the,5\na,3\n")
    (tmp_path / "design.toml").write_text(block)
    assert len(Design.from_toml(tmp_path / "design.toml")) == 20 * 3 * 2 * 2 * 30


def test_the_policies_of_the_page_on_what_if(tmp_path):
    page = ROOT / "docs" / "whatif.md"
    (block,) = [block for block in indented(page) if block.startswith("question = ")]
    assert tomllib.loads(block)
    (tmp_path / "policies.toml").write_text(block)
    plan = read_plan(tmp_path / "policies.toml")
    assert list(plan.policies) == ["quota"]


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "tests" / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
