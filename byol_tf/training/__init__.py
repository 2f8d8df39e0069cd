"""What goes on around the update: log, checkpoints, run folder."""
