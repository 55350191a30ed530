"""Progress on a terminal: `screen` shows a run, `bar` whatever else takes a while."""
