"""Parameter groups, layer-wise decay and schedules."""
