"""Every file that outlives a command passes here: atomic writers, checked readers, fingerprints, schemas."""
