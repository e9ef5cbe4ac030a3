"""Parts that are chosen by name, or by the path of a class of the user's own."""
