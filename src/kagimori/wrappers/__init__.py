"""
wrappers
"""
