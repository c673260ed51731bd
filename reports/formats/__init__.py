"""A report's blocks, and the formats that they are written in."""
