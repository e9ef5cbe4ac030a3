"""What frozen features are worth, one file a measure."""
