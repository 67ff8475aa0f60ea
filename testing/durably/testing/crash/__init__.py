"""Crashing an agent everywhere: the matrix, the laws it is held to, and the report."""
