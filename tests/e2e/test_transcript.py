"""
Part C, the 2015 transcript, as acceptance: ACC-1 to ACC-6.
"""
