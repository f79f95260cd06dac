"""Coverage-guided fuzzing of the annotation readers, for a bounded time each: nothing but our own error may come out.

Run: `pip install atheris`, then `python -m tests.benchmarks.fuzz_readers --seconds 30`. Each format runs in a process of its own,
since a fuzzer ends its process; a crash leaves the input that caused it in the working folder.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

TEXTUAL = ("karpathy", "coco_captions", "flickr_tokens", "flickr30k_results", "csv", "jsonl")


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one reader; does not return."""
    import atheris

    with atheris.instrument_imports(include=["cprd_pipeline.corpus.formats"], enable_loader_override=False):
        from cprd_pipeline.corpus.formats.places import open_sources
        from cprd_pipeline.corpus.formats.recognition import choose_format
        from cprd_pipeline.corpus.settings import FilesSettings
    from cprd_pipeline.errors import CprdError
    from tests.corpus import made_sources

    folder = Path(tempfile.mkdtemp())
    seeds = folder / "seeds"
    seeds.mkdir()
    writers = {
        "karpathy": made_sources.karpathy,
        "coco_captions": made_sources.coco,
        "flickr_tokens": made_sources.tokens,
        "flickr30k_results": made_sources.results,
        "csv": made_sources.table,
        "jsonl": made_sources.json_lines,
    }
    (folder / "made").mkdir()
    (seeds / "good").write_bytes(writers[name](folder / "made").read_bytes())
    path = folder / "fuzzed"
    files = FilesSettings.model_validate({"paths": path})

    def once(content: bytes) -> None:
        path.write_bytes(content)
        message = ""
        try:
            sources = open_sources(files)
            choose_format(name, sources, files).read(sources, files)
        except CprdError as error:
            message = str(error)
        assert "\n" not in message, "a message of several lines"

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-print_final_stats=1", str(seeds)], once)
    atheris.Fuzz()


def main() -> None:
    """Every format for some seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    if arguments.only:
        fuzz(arguments.only, arguments.seconds)
        return
    print("| reader | executions | edges covered | outcome |\n|---|---|---|---|")
    for name in TEXTUAL:
        command = [sys.executable, "-m", "tests.benchmarks.fuzz_readers", "--only", name, "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines()
        runs = next((line.split()[-1] for line in lines if line.startswith("stat::number_of_executed_units")), "?")
        edges = next((line.split("cov: ")[1].split()[0] for line in reversed(lines) if "cov: " in line), "?")
        outcome = "only our own error" if done.returncode == 0 else f"exit code {done.returncode}: {lines[-1] if lines else ''}"
        print(f"| {name} | {runs} | {edges} | {outcome} |", flush=True)


if __name__ == "__main__":
    main()
