"""What this project knows, or has to guess, about NVIDIA Clara. docs/clara.md says which is which.

`driver` starts a stage, `fastio` keeps arrays in the memory of a job, and `render_config` and `config_meta` are the
files for NVIDIA's Render Server.
"""
