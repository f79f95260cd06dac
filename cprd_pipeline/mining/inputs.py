"""What a run reads beside corpus and encoder: earlier rounds, and the user's groups."""

from dataclasses import dataclass

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining.earlier import open_earlier
from cprd_pipeline.mining.groups import digest_groups
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.store.folder import InputFolder


@dataclass(frozen=True)
class Inputs:
    """Folders and digests.

    Args:
        corpus: The corpus.
        encoder: Fingerprint of the encoder.
        merged: Candidates folders of earlier rounds.
        rankings: Rankings of an earlier round, when the sampler asks for them.
        groups: Digest of the group file.
    """

    corpus: Corpus
    encoder: str
    merged: tuple[InputFolder, ...]
    rankings: InputFolder | None
    groups: str | None

    def digests(self) -> dict[str, str]:
        """Digest of each, by name; those that are not there have none."""
        found = {"corpus": self.corpus.digest, "encoder": self.encoder}
        found |= {f"merged-{number}": folder.manifest.digest for number, folder in enumerate(self.merged, 1)}
        if self.rankings is not None:
            found["rankings"] = self.rankings.manifest.digest
        if self.groups is not None:
            found["groups"] = self.groups
        return found


def open_inputs(settings: MineSettings, corpus: Corpus, encoder: str) -> Inputs:
    """Open what the settings name.

    Raises:
        StoreError: A folder is missing, damaged or of another corpus.
        CorpusError: There is no group file.
    """
    sampler = settings.sampler
    rankings = sampler.rankings if sampler.kind == "teacher" else None
    groups = settings.filters.groups
    return Inputs(
        corpus,
        encoder,
        tuple(open_earlier(path, "candidates", corpus) for path in settings.merge),
        open_earlier(rankings, "rankings", corpus) if rankings is not None else None,
        digest_groups(groups) if groups is not None else None,
    )
