"""What the libraries raise about a model folder that is damaged, foreign, or contradicts itself."""

from safetensors import SafetensorError


def loading_failures() -> tuple[type[Exception], ...]:
    """For an `except` clause around what loads; a missing package (ImportError) is another matter.

    A function, since only a failure is worth the import.
    """
    from huggingface_hub.errors import StrictDataclassError

    # From whatever part of transformers first uses what is wrong.
    plain = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError)
    return (*plain, SafetensorError, StrictDataclassError)
