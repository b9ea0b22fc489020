"""
Suites that every adapter passes, ours and yours.

Each is a class of pytest tests with a hook that makes the adapter: derive from it in a test
file, name the class ``Test…``, and fill in the hook. They need pytest, and nothing else.
"""
