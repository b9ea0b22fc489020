"""
keys/protection
"""
