"""
integrations
"""
