"""Configuration: the schema and the YAML files that fill it."""
