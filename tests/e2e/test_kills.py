"""
Servers killed with kill -9 in the middle of refreshes and rotations.
"""
