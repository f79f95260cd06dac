"""The model card of a student: what it learned from, and how."""

import json
from collections.abc import Mapping

_TEXT = """---
library_name: transformers
tags: [image-text-retrieval, dual-encoder, distillation]
---

# Student trained by cprd-pipeline

- objective: {objective}
- corpus digest: `{corpus}`
- teacher fingerprint: `{teacher}`
- begun from: `{student}`{evaluated}

Load it with transformers' `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` (`from_pretrained` on this folder){extra}.
Embeddings are L2-normalised; the similarity of an image and a caption is their dot product.

## Settings

```json
{settings}
```
"""


def model_card(
    settings: Mapping[str, object],
    inputs: Mapping[str, str],
    teacher: str | None,
    model_type: str,
    evaluated: str = "",
    *,
    sentences: bool = False,
) -> str:
    """Markdown of the card; the same for the same run, so without times or paths.

    Args:
        settings: The settings that shape the student.
        inputs: Digests of what it was made from.
        teacher: Fingerprint of the teacher; None when none took part.
        model_type: Of the model's configuration.
        evaluated: What these very weights reached on the split that watched the training; empty when none did.
        sentences: Whether sentence-transformers reads the folder too.
    """
    extra = " after `import cprd_pipeline.models.scene_student`" if model_type == "scene_student" else ""
    extra += ", or with\nsentence-transformers' `SentenceTransformer`" if sentences else ""
    return _TEXT.format(
        objective=settings["objective"],
        corpus=inputs["corpus"],
        teacher=teacher or "none",
        student=inputs["student"],
        extra=extra,
        evaluated=f"\n- while training: {evaluated}" if evaluated else "",
        settings=json.dumps(settings, indent=2, sort_keys=True),
    )
