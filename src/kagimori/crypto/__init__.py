"""
crypto
"""
