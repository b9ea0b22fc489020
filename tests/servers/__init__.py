"""
Real servers that tests start for themselves: on loopback, on a free port, in a folder of their own.
"""
