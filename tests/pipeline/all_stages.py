"""Every stage of a project's graph as DVC would call it, but in one process, where libraries are loaded once."""

import os
import subprocess
import sys
from pathlib import Path

# Dependencies first. Each stage must find the data that it says it reads, and write those that it says it writes.
_ALL_STAGES = """
import shlex, sys
from pathlib import Path
import networkx
from dvc.repo import Repo
from typer.testing import CliRunner
from cprd_pipeline.cli import app

graph = Repo(".").index.graph
last = next(stage for stage in graph if stage.addressing == sys.argv[1])
needed = {last, *networkx.descendants(graph, last)}
for stage in reversed(list(networkx.topological_sort(graph))):
    if stage not in needed:
        continue
    missing = [dep for dep in map(str, stage.deps) if not Path(dep).exists()]
    program, *arguments = shlex.split(stage.cmd)
    done = CliRunner().invoke(app, arguments)
    missing += [out for out in map(str, stage.outs) if not Path(out).exists()]
    if missing or done.exit_code or program != "cprd-pipeline":
        sys.exit(f"{stage.addressing}: {missing} {done.output} {done.exception!r}")
    print(stage.addressing)
"""


def environment() -> dict[str, str]:
    """One thread; caches in the project's own data folder."""
    return {**os.environ, "CPRD_CACHE": "data", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def run_all_stages(project: Path, last: str) -> list[str]:
    """Run a stage and all that it needs.

    Args:
        project: A folder with dvc.yaml and stages/, in which `dvc init` ran.
        last: The stage as DVC addresses it.

    Returns:
        The stages that ran, in their order.
    """
    command = [sys.executable, "-c", _ALL_STAGES, last]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
