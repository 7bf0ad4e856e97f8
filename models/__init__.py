"""The models that come with the program, as a Triton model repository: a folder for each model."""
