"""Methods x seeds: run, measured, and shown with intervals."""
