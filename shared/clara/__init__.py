"""All that this project knows, or has to guess, of NVIDIA Clara. docs/clara.md says what is known and what is ours."""
