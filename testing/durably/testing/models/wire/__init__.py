"""The wire formats that ``LLMServer`` speaks, seen from the server: one package each, all of one outline.

``parse`` reads a request as strictly as the real server, ``body`` writes a response, ``events`` streams it, and
``failure`` writes an error.
"""
