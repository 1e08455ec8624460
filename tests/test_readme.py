"""The README is short, begins with the two commands, and its test command is CI's."""

import re

from tests.docs.pages import ROOT, blocks, text_of

README = text_of("README.md")


def shell_lines() -> list[str]:
    """Every line of the README's shell blocks."""
    return [line for b in blocks("README.md") if b.kind == "sh" for line in b.text.splitlines()]


def test_the_first_screen_holds_the_two_commands_and_output() -> None:
    """One installs and runs the main job, one runs the tests; what is printed stands between."""
    first = README.splitlines()[:40]
    lines = [line for line in shell_lines() if line in first]
    assert len(lines) == 2
    assert lines[0].endswith("autopar search --gpus 512 --model 70b")
    assert "pip install -e '.[dev]'" in lines[0]
    assert lines[1] == ".venv/bin/pytest -n auto"
    assert any(line.startswith("llama3-70b (70.6B parameters) on 512 x") for line in first)


def test_the_readme_is_short() -> None:
    """What is longer than four screens belongs to the site."""
    assert len(README.splitlines()) < 150


def test_its_links_lead_somewhere() -> None:
    """Every relative link of the README is a file of the repository."""
    links = re.findall(r"\]\(([^):#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_runs_what_the_readme_runs() -> None:
    """``.ci/run`` installs by the same words, calls the same test command and builds the site."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^\.venv/bin/pytest\b", script, re.MULTILINE)
    assert "-e '.[dev]'" in script
    assert "mkdocs build --strict" in script
