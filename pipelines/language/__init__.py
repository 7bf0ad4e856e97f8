"""The language of definitions: reads files, says what is wrong with them, and resolves them to a `model.Pipeline`."""
