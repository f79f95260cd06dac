"""The tree is what the README says, and the door is light."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cprd_pipeline"
README = (ROOT / "README.md").read_text()


def test_the_readmes_map_equals_the_tree() -> None:
    """Every room and every file at the top of the package stands in the map, and nothing else does."""
    block = re.search(r"```\ncprd_pipeline/\n(.*?)```", README, re.DOTALL)
    assert block is not None
    named = {name.rstrip("/") for line in block[1].splitlines() if (name := line.split()[0] if line.startswith("  ") else "")}
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert named == there - {"__init__.py"}


def test_every_command_stands_in_the_readme() -> None:
    """A user finds each command by name."""
    source = (PACKAGE / "cli.py").read_text()
    commands = re.findall(r"@app\.command\(\)\ndef (\w+)\(", source)
    assert len(commands) >= 8
    assert not [name for name in commands if f"`{name.replace('_', '-')}" not in README]


def test_version_stands_in_one_place() -> None:
    """pyproject.toml reads it from the package."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'path = "cprd_pipeline/__init__.py"' in pyproject
    assert not re.search(r'^version = "', pyproject, re.MULTILINE)


def test_every_test_says_what_must_hold() -> None:
    """A test without a docstring cannot be judged by its reader."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent
