"""The definition language: reads files, reports what is wrong with them, and resolves them to a `model.Pipeline`."""
