"""Files of structures and labels, one module a format."""
