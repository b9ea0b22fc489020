"""
One module per ``grant_type``: what a client shows, and what it gets for it.

A grant decides and commits; it neither authenticates the client nor signs.
"""
