"""
One module for each command, named as Django calls it.
"""
