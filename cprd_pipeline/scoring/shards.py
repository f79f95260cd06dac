"""Many processes or machines on one plan: which of them scores which image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cprd_pipeline.store.fingerprint import DigestArray


@dataclass(frozen=True)
class Shard:
    """The images whose digest, as a number, leaves a certain rest.

    By content and not by position, so that shards stay the same when the corpus grows.

    Args:
        index: The rest, from 0.
        count: Number of shards.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `i/n`.

        Raises:
            ValueError: Not two numbers with 0 <= i < n.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"{text!r} is no shard; expected i/n with 0 <= i < n, such as 0/4")
        return cls(int(index), int(count))

    def owns(self, digests: DigestArray) -> npt.NDArray[np.bool_]:
        """Whether each image is this shard's; bool [N].

        Args:
            digests: Of the images, uint8 [N, 16].
        """
        if self.count == 1:
            return np.ones(len(digests), dtype=np.bool_)
        rests = (int.from_bytes(digest.tobytes()) % self.count for digest in digests)
        return np.fromiter((rest == self.index for rest in rests), dtype=np.bool_, count=len(digests))


EVERYTHING = Shard(0, 1)
