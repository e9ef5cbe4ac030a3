"""A run: its setting, its parts, its folder and its end."""
