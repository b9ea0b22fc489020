"""
A thousand hostile requests at every endpoint bring no server error.
"""
