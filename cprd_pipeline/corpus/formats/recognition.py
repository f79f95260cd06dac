"""All formats, and which of them a file is of."""

from collections.abc import Sequence

from cprd_pipeline.corpus.formats.coco_captions import COCO_CAPTIONS
from cprd_pipeline.corpus.formats.delimited import CSV
from cprd_pipeline.corpus.formats.flickr30k_results import FLICKR30K_RESULTS
from cprd_pipeline.corpus.formats.flickr_tokens import FLICKR_TOKENS
from cprd_pipeline.corpus.formats.image_folder import FOLDER
from cprd_pipeline.corpus.formats.json_lines import JSONL
from cprd_pipeline.corpus.formats.karpathy import KARPATHY
from cprd_pipeline.corpus.formats.parquet_table import PARQUET
from cprd_pipeline.corpus.formats.saved_dataset import DATASETS
from cprd_pipeline.corpus.formats.source import EncodingError, Format, SourceFile
from cprd_pipeline.corpus.formats.tar_shards import WEBDATASET
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

# In the order in which they are tried: what a file's first bytes tell, then the strict shapes, then the general ones.
FORMATS = (PARQUET, WEBDATASET, DATASETS, KARPATHY, COCO_CAPTIONS, JSONL, FLICKR_TOKENS, FLICKR30K_RESULTS, CSV, FOLDER)


def choose_format(name: str, sources: Sequence[SourceFile], settings: FilesSettings) -> Format:
    """The format of a name, or for `auto` the one that the first file is of.

    Raises:
        CorpusError: No format fits; the message says why not, format by format.
    """
    if name != "auto":
        return next(known for known in FORMATS if known.name == name)
    do = "name the format with `source` and a table's columns with `files.columns`, or mend files.paths"
    reasons: dict[str, list[str]] = {}
    for known in FORMATS:
        try:
            reason = known.refuse(sources[0], settings)
        except CorpusError as error:
            reason = error.found.removeprefix(f"{sources[0].path}: ")
            # No format of text will read it, whatever it is called.
            do = error.do if isinstance(error, EncodingError) else do
        if not reason:
            return known
        reasons.setdefault(reason, []).append(known.name)
    tried = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    raise CorpusError(f"{sources[0].path}: of no format that is known ({tried})", do=do)
