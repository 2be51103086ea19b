"""A comparison as tables, pictures and one page."""
