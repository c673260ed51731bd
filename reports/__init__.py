"""Results and published numbers in, tables out. Loads no torch."""
