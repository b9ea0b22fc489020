"""
ring_stores
"""
