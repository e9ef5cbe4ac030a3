"""The config: composed, checked and completed."""
