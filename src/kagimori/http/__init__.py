"""
http
"""
