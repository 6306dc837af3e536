"""A run made from a configuration: the room that joins the others."""
