"""The model card of a student: what it learned from, and how."""

import json
from collections.abc import Mapping

from cprd_pipeline.distillation.log import LogRow

_TEXT = """---
library_name: transformers
tags: [image-text-retrieval, dual-encoder, distillation]
---

# Student trained by cprd-pipeline

- objective: {objective}
- corpus: {images:,} images and {captions:,} captions of split `{split}`, digest `{corpus}`
- teacher fingerprint: `{teacher}`{rankings}
- begun from: `{student}`
- last step: {step:,}, loss {loss:.3f} (contrastive {contrastive:.3f}, distillation {distillation:.3f}){evaluated}

Load it with transformers' `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` (`from_pretrained` on this folder){extra}.
Divide embeddings by their length; the similarity of an image and a caption is their dot product then.

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
    last: LogRow,
    evaluated: str = "",
    *,
    items: tuple[int, int],
    sentences: bool = False,
) -> str:
    """Markdown of the card; the same for the same run, so without times or paths.

    Args:
        settings: The settings that shape the student.
        inputs: Digests of what it was made from.
        teacher: Fingerprint of the teacher; None when none took part.
        model_type: Of the model's configuration.
        last: The last row of the training log.
        evaluated: What these very weights reached on the split that watched the training; empty when none did.
        items: Images and captions of the split.
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
        rankings="".join(f"\n- {name}: digest `{digest}`" for name, digest in inputs.items() if name.startswith("rankings")),
        split=settings["split"],
        images=items[0],
        captions=items[1],
        **{name: last[name] for name in ("step", "loss", "contrastive", "distillation")},
        settings=json.dumps(settings, indent=2, sort_keys=True),
    )
