"""The command `study`: the arms of the paper over several seeds, compared, with what came out about its findings."""
