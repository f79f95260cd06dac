"""Similarities that come out the same whatever the block, shard or thread count.

A float32 matrix product is fast but its last bits depend on how the work was cut, so ties and near ties would fall
either way. Here it only sorts out what is clear; every pair within its error bound is computed again in float64 and
rounded to float32, and equal vectors tie exactly.

Shape suffixes: Q queries, N items, D embedding width, P pairs.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64

FloatArray = npt.NDArray[np.float32]

_BLOCK_SIMILARITIES = 2**22
_PAIR_NUMBERS = 2**22
_SINGLE_ROUNDOFF = 2.0**-24
_DOUBLE_ROUNDOFF = 2.0**-53


def pair_similarities(
    queries_QD: Float32[np.ndarray, "Q D"],
    items_ND: Float32[np.ndarray, "N D"],
    query_rows: Int64[np.ndarray, " P"],
    item_rows: Int64[np.ndarray, " P"],
) -> Float32[np.ndarray, " P"]:
    """Dot product of each pair, summed in float64 and rounded once.

    Returns:
        Cosine similarities in [-1, 1] when the embeddings have unit length; float32 [P].
    """
    similarities = np.empty(len(query_rows), dtype=np.float32)
    step = max(1, _PAIR_NUMBERS // max(1, queries_QD.shape[1]))
    for start in range(0, len(query_rows), step):
        part = slice(start, start + step)
        products = queries_QD[query_rows[part]].astype(np.float64)
        products *= items_ND[item_rows[part]]
        similarities[part] = products.sum(axis=1)
    return similarities


def tile_similarities(queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "Q N"]:
    """`pair_similarities` of all queries with all items, bit for bit, at the price of a float64 matrix product.

    Both sums lie within the float64 error bound of the true one, so wherever the product rounds to the same float32 from
    either end of twice that bound, it is the right one. The few others are computed pair by pair.
    """
    products = queries_QD.astype(np.float64) @ items_ND.T.astype(np.float64)
    margin = 2.0 * _error_bound(queries_QD, items_ND, _DOUBLE_ROUNDOFF)
    similarities, highest = (products - margin).astype(np.float32), (products + margin).astype(np.float32)
    rows, items = (found.astype(np.int64) for found in np.nonzero(similarities != highest))
    similarities[rows, items] = pair_similarities(queries_QD, items_ND, rows, items)
    return similarities


def similarity_blocks(
    queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"]
) -> Iterator[tuple[slice, FloatArray]]:
    """Approximate similarities in float32, some queries at a time, so that memory does not grow with Q.

    Yields:
        The queries' slice, and their similarities with all items; float32 [q, N].
    """
    step = max(1, _BLOCK_SIMILARITIES // max(1, len(items_ND)))
    for start in range(0, len(queries_QD), step):
        block = slice(start, min(start + step, len(queries_QD)))
        yield block, queries_QD[block] @ items_ND.T


def error_bound(queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"]) -> np.float32:
    """How far a float32 similarity can lie from the rounded exact one, in whatever order it was summed.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, section 3.1 (gamma_n), with room for
    the two further roundings of a comparison.
    """
    return np.float32(_error_bound(queries_QD, items_ND, _SINGLE_ROUNDOFF))


def _error_bound(queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"], unit_roundoff: float) -> float:
    lengths = _longest(queries_QD) * _longest(items_ND)
    return float((queries_QD.shape[1] + 8) * unit_roundoff * lengths)


def _longest(embeddings_ND: Float32[np.ndarray, "N D"]) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", embeddings_ND, embeddings_ND).max(initial=0.0)))
