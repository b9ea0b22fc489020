"""
Rotation while clients work: no verification ever fails.
"""
