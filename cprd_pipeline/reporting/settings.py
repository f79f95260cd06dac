"""Settings of the stage `report`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, ReportPath, Settings, StageSettings


class GallerySettings(Settings):
    """Which queries the page shows, and how much of each.

    Args:
        queries: Queries per direction, an equal share for each filter; fewer when the rankings hold fewer.
        shown: First items of each order.
        thumbnail_pixels: Longest side of a picture.
        seed: Of the draw.
    """

    queries: NonNegativeInt = 24
    shown: PositiveInt = 8
    thumbnail_pixels: Annotated[int, Field(ge=16, le=512)] = 96
    seed: NonNegativeInt = 0


class ReportSettings(StageSettings):
    """Stage `report`: the files that the page is made from; stages/report.yaml explains each."""

    corpus: Path = Path("data/corpus")
    evaluation: Path = Path("data/reports/evaluation")
    rankings: Path = Path("data/rankings/test")
    student: str = "cprd"
    stages: tuple[Path, ...] = ()
    logs: dict[str, Path] = Field(default_factory=dict)
    gallery: GallerySettings = GallerySettings()
    output: Path = Path("data/reports/report.html")
    report: ReportPath = Path("data/reports/report.json")

    @property
    def written_files(self) -> list[Path]:
        """The page as well."""
        return [*super().written_files, self.output]
