"""The model card of a teacher that the pipeline trained."""

import json
from collections.abc import Mapping

_TEXT = """---
library_name: transformers
tags: [image-text-matching, cross-encoder]
---

# Scene teacher trained by cprd-pipeline

A small cross-encoder for the pictures of the demo world (48 x 48 pixels, captions of at most 24 words). It says how well
a caption describes a picture as a raw matching logit: higher is better, above 0 means that they belong together.

- corpus digest: `{corpus}`

After `import cprd_pipeline.models.scene_teacher`, `transformers.AutoModel.from_pretrained` loads this folder;
`cprd_pipeline.models.scene_teacher.SceneTeacher.load` gives the teacher that the pipeline scores with.

## Settings

```json
{settings}
```
"""


def teacher_card(settings: Mapping[str, object], corpus: str) -> str:
    """Markdown of the card; the same for the same run, so without times or paths.

    Args:
        settings: The settings that shape the teacher.
        corpus: Digest of the corpus it was trained on.
    """
    return _TEXT.format(corpus=corpus, settings=json.dumps(settings, indent=2, sort_keys=True))
