"""Programs that a newcomer starts, and the measurements behind the results."""
