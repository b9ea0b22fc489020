"""
admin
"""
