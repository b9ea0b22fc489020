"""
Demonstrations that run from a fresh clone, outside the product: what it does, shown.
"""
