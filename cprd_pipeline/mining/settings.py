"""Settings of the stage `mine`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings


class MineSettings(Settings):
    """Every knob of `mine`; stages/mine.yaml explains each with its default.

    Args:
        corpus: Corpus folder.
        split: The split whose items ask and are asked for.
        encoder: Dual encoder: folder or hub name.
        round: Label of the mining round.
        k: Candidates a query.
        output: Candidates folder.
        report: Where the stage's report goes.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: Number type of the encoder; `auto` is bfloat16 on a GPU, float32 elsewhere.
        batch_size: Items that go through the encoder together.
        workers: Processes that decode images; 0 decodes in the stage's own.
        part_queries: Queries of a Parquet part: what a killed run loses at most.
        query_block: Queries searched together.
        index_block: Vectors searched together; they must fit into a GPU's memory.
    """

    corpus: Path = Path("data/corpus")
    split: str = "train"
    encoder: str = "data/students/base"
    round: Annotated[str, Field(coerce_numbers_to_str=True)] = "1"
    k: PositiveInt = 64
    output: Path = Path("data/candidates/1")
    report: Path = Path("data/reports/mine.json")
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    batch_size: PositiveInt = 256
    workers: NonNegativeInt = 0
    part_queries: PositiveInt = 8192
    query_block: PositiveInt = 1024
    index_block: PositiveInt = 4_194_304
