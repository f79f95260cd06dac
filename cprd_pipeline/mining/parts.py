"""How the queries of a direction are cut into the parts of the folder."""

from collections.abc import Iterator

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.mining.candidates import Direction

MOST_PARTS = 100_000
"""Parts of a direction: readers take them in the order of their names, whose numbers have five digits."""


def check_parts(queries: int, size: int) -> None:
    """Refuse parts so small that there would be too many.

    Args:
        queries: Of the direction that has more of them.
        size: Queries of a part.

    Raises:
        SettingsError: It is too small.
    """
    if queries > MOST_PARTS * size:
        raise SettingsError(
            f"part_queries is {size:,}, which cuts {queries:,} queries into {-(-queries // size):,} parts",
            expected=f"at most {MOST_PARTS:,} parts a direction",
            do=f"set part_queries to at least {-(-queries // MOST_PARTS):,}",
        )


def cut_parts(direction: Direction, queries: int, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, first query and end of each part.

    Args:
        direction: Who asks.
        queries: How many.
        size: Queries of a part.
    """
    for number, start in enumerate(range(0, queries, size)):
        yield f"{direction}-{number:05d}.parquet", start, min(start + size, queries)
