"""What `mae data` does before a run: pack, check, measure."""
