"""
Stopping and starting again loses nothing.
"""
