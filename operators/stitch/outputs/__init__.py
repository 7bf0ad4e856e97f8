"""The files that nuclei are handed over in, one module a format."""
