"""Every key of the config: its type, range and choices, a line of help, and what fills a null."""
