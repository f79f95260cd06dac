"""Settings of the stage `mine`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.settings import NonNegativeInt, PositiveInt, ReportPath, Settings, StageSettings

Cosine = Annotated[float, Field(ge=-1, le=1)]


class FilterSettings(Settings):
    """Which items never become candidates; null switches a filter off. Similarities at a bound pass.

    Args:
        first_rank: Best rank that may become a candidate, from 1, positives not counted; 11 leaves out the ten most similar.
        last_rank: Worst rank that may.
        max_similarity: Nothing more similar than this.
        min_similarity: Nothing less similar than this.
        absolute_margin: Nothing above the query's lowest positive similarity minus this.
        relative_margin: Nothing above p - |p| * this, where p is the query's lowest positive similarity.
        same_text: Whether a caption that equals a positive one, or a better candidate, but for case and space is left out.
        similar_text: Nothing whose caption has at least this cosine with a positive caption of the pair's image.
        groups: CSV or Parquet file that gives images (column image_id) or captions (caption_id) a group; nothing of the query's
            own group becomes a candidate.
        group_column: Column of that file with the group.
    """

    first_rank: PositiveInt = 1
    last_rank: PositiveInt | None = None
    max_similarity: Cosine | None = None
    min_similarity: Cosine | None = None
    absolute_margin: FiniteFloat | None = None
    relative_margin: FiniteFloat | None = None
    same_text: bool = True
    similar_text: Cosine | None = None
    groups: Path | None = None
    group_column: str = "group"

    @property
    def ranges(self) -> bool:
        """Whether ranks are restricted."""
        return self.first_rank > 1 or self.last_rank is not None

    def in_force(self) -> dict[str, Any]:
        """The filters that are on; a group file counts by its content, which the stage adds."""
        values = self.model_dump(mode="json", exclude={"groups", "group_column"}, exclude_none=True)
        if self.groups is not None:
            values["group_column"] = self.group_column
        return {name: value for name, value in values.items() if (name, value) not in {("first_rank", 1), ("same_text", False)}}

    @model_validator(mode="after")
    def _check(self) -> "FilterSettings":
        if self.last_rank is not None and self.last_rank < self.first_rank:
            raise ValueError(f"first_rank is {self.first_rank}, behind last_rank {self.last_rank}: no item has such a rank")
        low, high = self.min_similarity, self.max_similarity
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_similarity is {low}, above max_similarity {high}: no item has such a similarity")
        return self


class SamplerSettings(Settings):
    """Which of the items that pass the filters become candidates.

    Args:
        kind: `top`: the most similar; `random`: any of the pool; `softmax`: of the pool, with odds exp(similarity / temperature);
            `similarity`: spread over the pool's similarities; `teacher`: of the query's candidates in `rankings`, spread over
            their teacher scores.
        pool: The most similar items that pass, from which `random`, `softmax` and `similarity` draw; null for the whole range
            of ranks, or 4 * k when that has no end.
        temperature: Of `softmax`.
        strata: Ranges of equal width, for `similarity` and `teacher`, that give equally many items where they have them.
        rankings: Rankings folder of an earlier round, for `teacher`.
        seed: Of the draws; each query's depend on it and on the query's id alone.
    """

    kind: Literal["top", "random", "softmax", "similarity", "teacher"] = "top"
    pool: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] = 0.05
    strata: Annotated[int, Field(gt=0, le=1_000_000)] = 8
    rankings: Path | None = None
    seed: NonNegativeInt = 0

    @property
    def draws_from_pool(self) -> bool:
        """Whether `pool` counts."""
        return self.kind in ("random", "softmax", "similarity")

    def in_force(self) -> dict[str, Any]:
        """The kind and the values that it uses; the rankings count by their content, which the stage adds."""
        used = {
            "top": (),
            "random": ("seed",),
            "softmax": ("temperature", "seed"),
            "similarity": ("strata", "seed"),
            "teacher": ("strata", "seed"),
        }
        return {"kind": self.kind, **{name: getattr(self, name) for name in used[self.kind]}}

    @model_validator(mode="after")
    def _check(self) -> "SamplerSettings":
        if self.kind == "teacher" and self.rankings is None:
            raise ValueError("kind is teacher, but rankings is null; name the rankings folder of an earlier round")
        return self


class MineSettings(StageSettings):
    """Every knob of `mine`; stages/mine.yaml explains each with its default.

    Args:
        corpus: Corpus folder.
        split: The split whose items ask and are asked for.
        encoder: Dual encoder: folder or hub name.
        round: Label of the mining round.
        k: Candidates a query.
        index: Which FAISS index finds them.
        filters: Which items never become candidates.
        sampler: Which of the others do.
        merge: Candidates folders of earlier rounds, whose lists are added to this round's.
        output: Candidates folder.
        report: Where the stage's report goes.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; FAISS then searches on all GPUs, on none, on all, or on that one alone.
        dtype: Number type of the encoder; `auto` is bfloat16 on a GPU, float32 elsewhere.
        batch_size: Items that go through the encoder together.
        workers: Processes that decode and preprocess images; 0: the stage's own does.
        part_queries: Queries of a Parquet part: what a killed run loses at most.
        query_block: Queries searched together.
        index_block: Vectors searched together; they must fit into a GPU's memory.
    """

    corpus: Path = Path("data/corpus")
    split: str = "train"
    encoder: str = "data/students/base"
    round: Annotated[str, Field(coerce_numbers_to_str=True)] = "1"
    k: PositiveInt = 64
    index: IndexSettings = IndexSettings()
    filters: FilterSettings = FilterSettings()
    sampler: SamplerSettings = SamplerSettings()
    merge: tuple[Path, ...] = ()
    output: Path = Path("data/candidates/1")
    report: ReportPath = Path("data/reports/mine.json")
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    batch_size: PositiveInt = 256
    workers: NonNegativeInt = 0
    part_queries: PositiveInt = 8192
    query_block: PositiveInt = 1024
    index_block: PositiveInt = 4_194_304

    @property
    def pool(self) -> int:
        """How many items that pass the filters are looked for."""
        if not self.sampler.draws_from_pool:
            return self.k
        if self.sampler.pool is not None:
            return self.sampler.pool
        if self.filters.last_rank is not None:
            return self.filters.last_rank - self.filters.first_rank + 1
        return 4 * self.k

    def in_force(self) -> dict[str, Any]:
        """What shapes the output beside the inputs' contents. An exact index does not, whatever its parameters."""
        plain = ("split", "k", "round", "part_queries")
        index = self.index.model_dump(mode="json", exclude={"gpus", "recall_sample"})
        pool = {"pool": self.pool} if self.sampler.draws_from_pool else {}
        return {
            **{name: getattr(self, name) for name in plain},
            "index": {"kind": "exact"} if self.index.kind == "exact" else index,
            "filters": self.filters.in_force(),
            "sampler": {**self.sampler.in_force(), **pool},
        }

    @model_validator(mode="after")
    def _check(self) -> "MineSettings":
        filters = self.filters
        if filters.last_rank is not None and filters.last_rank - filters.first_rank + 1 < self.k:
            raise ValueError(f"filters: k is {self.k}, but only the ranks {filters.first_rank} to {filters.last_rank} may be taken")
        if self.pool < self.k:
            raise ValueError(f"sampler: pool is {self.pool}, less than the k of {self.k} that are drawn from it")
        if self.output.absolute() in [path.absolute() for path in self.merge]:
            raise ValueError(f"merge names {self.output}, which is the output; give this round an output of its own")
        if self.sampler.kind == "teacher" and filters.ranges:
            raise ValueError("the sampler teacher draws from the rankings, whatever the rank; set first_rank 1 and last_rank null")
        return self
