"""Images, captions and which describes which: sources, the corpus folder, the one image decoder."""
