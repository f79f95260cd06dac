"""Columns of every table that lies between two stages. A change here is a new `SCHEMA_VERSION`."""

import pyarrow as pa

from cprd_pipeline.errors import StoreError

SCHEMA_VERSION = 2

FINGERPRINT_VERSION = 1
"""Part of every model's fingerprint. Raised only when equal models would give other numbers: it orphans all stored scores."""

DIGEST = pa.binary(16)

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("path", pa.string()),  # relative to the corpus' image root; null when bytes are given
        pa.field("bytes", pa.binary()),  # the original file; null when a path is given
        pa.field("digest", DIGEST, nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

CAPTIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("digest", DIGEST, nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

POSITIVES = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("caption_id", pa.string(), nullable=False)])

REJECTED = pa.schema([pa.field("image_id", pa.string()), pa.field("path", pa.string()), pa.field("reason", pa.string())])


def _required(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


_QUERY = [_required("query_id", pa.string()), _required("direction", pa.string())]
_STRINGS = pa.list_(pa.string())
_FLOATS = pa.list_(pa.float32())

CANDIDATE_FILTERS = (
    "rank",
    "min_similarity",
    "max_similarity",
    "absolute_margin",
    "relative_margin",
    "same_group",
    "same_text",
    "similar_text",
)
"""In the order in which they are asked: the first that objects to an item counts it, in the column `dropped_<filter>`."""

CANDIDATES = pa.schema(
    [
        *_QUERY,
        _required("candidate_ids", _STRINGS),  # by similarity, best first; ties by id
        _required("similarities", _FLOATS),
        _required("positive_ids", _STRINGS),
        _required("positive_similarities", _FLOATS),
        _required("dropped_positive", pa.int32()),  # positive ids more similar than the k-th other item, filters aside
        _required("dropped_duplicate", pa.int32()),  # ids left out since a candidate has the same content
        *(_required(f"dropped_{name}", pa.int32()) for name in CANDIDATE_FILTERS),
        _required("passed", pa.int32()),  # items that passed the filters, from which candidates were drawn
        _required("merged", pa.int32()),  # candidates that only earlier rounds have
        _required("dropped_merged", pa.int32()),  # earlier candidates that this round's filters keep out
    ]
)

RANKINGS = pa.schema(
    [
        *_QUERY,
        _required("candidate_ids", _STRINGS),  # by teacher score, best first; ties by id
        _required("teacher_scores", _FLOATS),
        _required("similarities", _FLOATS),
        _required("false_negative", pa.list_(pa.bool_())),
        _required("n_valid", pa.int32()),
        pa.field("valid_cutoff", pa.float32()),  # lowest valid score; null when n_valid is 0
        _required("positive_ids", _STRINGS),
        _required("positive_scores", _FLOATS),
        _required("positive_similarities", _FLOATS),
    ]
)

EVALUATED_QUERIES = pa.schema(
    [
        *_QUERY,
        _required("model", pa.string()),
        _required("group", pa.int32()),  # image of the split, from 0, that the query is about: resampled together
        _required("rank", pa.int32()),  # of the best positive among all items of the split, from 1; ties against the model
        _required("positive_ranks", pa.list_(pa.int32())),  # of all positives, in the order of the corpus
        pa.field("ndcg", pa.float64()),  # against the true graded relevance; null when the corpus has none
    ]
)

EVALUATED_LISTS = pa.schema(
    [
        *_QUERY,  # the queries of the rankings, in their order
        _required("model", pa.string()),
        _required("candidate_similarities", _FLOATS),  # by this model, of the ranking's candidates in the ranking's order
        _required("positive_similarities", _FLOATS),
    ]
)


def check_schema(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """Refuse a table whose columns are not exactly the contract's.

    Raises:
        StoreError: A column is missing, surplus or of another type.
    """
    if table.schema.names != schema.names or any(table.schema.field(f.name).type != f.type for f in schema):
        found = ", ".join(f"{f.name}: {f.type}" for f in table.schema)
        wanted = ", ".join(f"{f.name}: {f.type}" for f in schema)
        raise StoreError(f"{name}: columns are {found}", expected=wanted, do="make it again with this version")
    return table
