"""Search algorithms between trials: one file each, its name is the tuner's name."""
