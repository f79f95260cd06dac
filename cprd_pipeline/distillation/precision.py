"""The precision of the student's towers while it trains."""

import torch

from cprd_pipeline.models.dual_encoder import DualEncoder


def training_precision(student: DualEncoder) -> torch.autocast:
    """Weights stay float32; a lower precision is used where autocast finds it safe."""
    lower = student.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(student.device.type, dtype=student.dtype if lower else torch.bfloat16, enabled=lower)
