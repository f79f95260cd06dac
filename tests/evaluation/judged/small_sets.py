"""Corpora with ids of the caller's choice, and students that see exactly the similarities that a test writes down."""

import json

import numpy as np

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.evaluation.students import EmbeddedStudent
from tests.tiny_encoders import write_corpus


def corpus_of(folder, captions_of, texts=None, outside=True):
    """A corpus whose split `test` holds images and, for each, the captions that were written for it.

    Args:
        folder: Where to write it.
        captions_of: Caption ids of each image id.
        texts: Text of each caption id; made up where it is missing.
        outside: Whether a train image and caption stand before the split, so that places are not rows.
    """
    texts = {} if texts is None else texts
    images = [("train-image", b"train-image", "train")] * outside
    captions = [("train-caption", "of the train split", "train")] * outside
    positives = [("train-image", "train-caption")] * outside
    for image, members in captions_of.items():
        images.append((image, image.encode(), "test"))
        captions += [(caption, texts.get(caption, f"text {caption}"), "test") for caption in members]
        positives += [(image, caption) for caption in members]
    corpus = Corpus(write_corpus(folder, images, captions, positives))
    return corpus, corpus.split("test")


def student_of(similarities):
    """A student whose similarity of image i and caption c is `similarities[i][c]`, in the order of the split."""
    matrix = np.array(similarities, dtype=np.float32)
    return EmbeddedStudent("student", np.eye(len(matrix), dtype=np.float32), np.ascontiguousarray(matrix.T))


def write_json(path, content):
    """A JSON file in a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
