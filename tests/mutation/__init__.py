"""Mutants of the replay engine, made by rule: not part of the ordinary suite. See ``__main__.py``."""
