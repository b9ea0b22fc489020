"""
Several workers and several servers on one database agree to the instant.
"""
