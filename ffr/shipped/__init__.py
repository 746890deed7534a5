"""Files that come with ffr: models, encoders, recipes; data only, imports nothing."""
