"""The commands by stage: each adds its parsers, and calls one function of its stage."""
