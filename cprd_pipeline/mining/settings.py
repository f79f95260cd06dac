"""Settings of the stage `mine`."""

from pathlib import Path

from cprd_pipeline.models.choices import DeviceChoice, DtypeChoice
from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings
