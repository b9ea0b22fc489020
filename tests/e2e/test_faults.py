"""
Faults of the machine and the operator: clear text, exit 3, no new key.
"""
