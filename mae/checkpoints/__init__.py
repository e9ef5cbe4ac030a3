"""Our checkpoint format, and translation from those of others."""
