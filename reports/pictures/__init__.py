"""A report's pictures. Only what draws loads matplotlib."""
