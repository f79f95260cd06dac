"""Stage `report`: one self-contained HTML page made from the files of a run."""
