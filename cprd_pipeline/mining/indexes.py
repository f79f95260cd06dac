"""The search that the settings ask for."""

from collections.abc import Sequence
from pathlib import Path

from cprd_pipeline.mining.approximate import ApproximateSearch, Finder
from cprd_pipeline.mining.hnsw import HnswFinder, HnswRecipe
from cprd_pipeline.mining.index_file import Recipe, stored_index
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.ivf import IvfFinder, IvfRecipe, cells_and_sample
from cprd_pipeline.mining.search import ExactSearch, Search, Vectors

_REFINE_PQ = 8


def check_index(index: IndexSettings, count: int) -> None:
    """Refuse what does not fit the number of vectors, before there are any.

    Args:
        index: The settings.
        count: Vectors.

    Raises:
        SettingsError: There are too few.
    """
    if index.kind in ("ivf_flat", "ivf_pq"):
        cells_and_sample(index, count)


def make_search(
    vectors: Vectors,
    index: IndexSettings,
    *,
    identity: str,
    cache: Path,
    query_block: int,
    index_block: int,
    gpus: Sequence[int],
) -> Search:
    """A search among vectors; an approximate index is built, or read where an earlier run left it.

    Args:
        vectors: float32 [N, D], N >= 1, finite; may be memory-mapped.
        index: The settings.
        identity: Of the vectors and their order: the same text for the same rows, and no others.
        cache: The cache folder; indexes lie in its `indexes`.
        query_block: Queries searched together.
        index_block: Vectors that an exact search looks at together.
        gpus: Numbers of the GPUs to search on, as `choose_gpus` gives them; none for the CPU.

    Raises:
        SettingsError: A setting does not fit the number of vectors or their width.
        MachineError: The index does not fit on the disk or the GPUs.
        MissingDependencyError: faiss is not installed.
    """
    if index.kind == "exact":
        return ExactSearch(vectors, query_block=query_block, index_block=index_block, gpus=gpus, float16=index.float16)
    recipe: Recipe = HnswRecipe.choose(index) if index.kind == "hnsw" else IvfRecipe.choose(index, *vectors.shape)
    stored = stored_index(recipe, vectors, identity, cache / "indexes")
    finder: Finder
    if index.kind == "hnsw":
        finder = HnswFinder(stored.index, index)
    else:
        finder = IvfFinder(stored.index, index, gpus)
    refine = index.refine or (_REFINE_PQ if index.kind == "ivf_pq" else 1)
    return ApproximateSearch(vectors, stored, finder, recipe.as_json(), query_block=query_block, refine=refine)
