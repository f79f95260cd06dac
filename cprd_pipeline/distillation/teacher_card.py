"""The model cards of teachers that the pipeline trained; the same for the same run, so without times or paths."""

import json
from collections.abc import Mapping

from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings

_SCENES = """---
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

_BLIP = """---
library_name: transformers
tags: [image-text-matching, image-text-retrieval, cross-encoder, blip]
---

# BLIP fine-tuned by cprd-pipeline

Fine-tuned by the image-text contrastive loss and by the matching loss on hard negatives that the contrastive head found in the
batch (ALBEF, arXiv:2107.07651; BLIP, arXiv:2201.12086).

- corpus digest: `{corpus}`
- begun from: `{identity}`
- temperature of the contrastive loss: begun at 0.07, learned, {temperature:.4f} at the end; the model's class has no weight for it
- token 0 of what the matching head reads: {first_token}

`transformers.BlipForImageTextRetrieval.from_pretrained` loads this folder. To score with it as it was trained, in
`stages/score_teacher.yaml`:

```yaml
teacher:
  model: <this folder>
  first_token: {token}{max_text_tokens}
```

## Settings

```json
{settings}
```
"""


def scene_card(settings: Mapping[str, object], corpus: str) -> str:
    """Markdown of a scene teacher's card.

    Args:
        settings: The settings that shape the teacher.
        corpus: Digest of the corpus it was trained on.
    """
    return _SCENES.format(corpus=corpus, settings=_json(settings))


def blip_card(settings: TrainTeacherSettings, corpus: str, identity: str, temperature: float) -> str:
    """Markdown of a BLIP's card.

    Args:
        settings: The stage's settings.
        corpus: Digest of the corpus it was trained on.
        identity: Fingerprint of the model that the training began with.
        temperature: Of the contrastive loss, at the end.
    """
    token, limit = settings.blip.first_token, settings.blip.max_text_tokens
    return _BLIP.format(
        corpus=corpus,
        identity=identity,
        temperature=temperature,
        first_token={"cls": "[CLS], as in transformers", "enc": "[ENC], as published"}[token],
        token=token,
        max_text_tokens=f"\n  max_text_tokens: {limit}" if limit else "",
        settings=_json(settings.shaping()),
    )


def _json(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, indent=2, sort_keys=True)
