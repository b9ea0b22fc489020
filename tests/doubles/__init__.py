"""
Doubles of foreign servers: they speak the real protocol and do real cryptography.
"""
