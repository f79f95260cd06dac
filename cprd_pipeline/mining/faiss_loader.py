"""The one place that imports faiss, which comes with an extra and may be there only in name."""

import importlib
from types import ModuleType

from cprd_pipeline.errors import MissingDependencyError, first_line


def load_faiss() -> ModuleType:
    """The faiss module.

    Raises:
        MissingDependencyError: It is not installed, cannot be loaded, or is the hollow folder that is left when one of
            faiss-cpu and faiss-gpu was removed while both were there.
    """
    try:
        faiss = importlib.import_module("faiss")
    except (ImportError, RuntimeError) as error:
        raise _missing(f"cannot be imported ({first_line(error)})") from error
    if not hasattr(faiss, "IndexFlatIP"):
        raise _missing("is an empty shell (one of its two packages was removed)")
    return faiss


def _missing(found: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"faiss {found}",
        expected="faiss-cpu or faiss-gpu, not both",
        do="pip install 'cprd-pipeline[cpu]', or 'cprd-pipeline[gpu]' on a machine with an NVIDIA GPU; "
        "where it is there already, uninstall both faiss packages first",
    )
