"""
Algorithms, keys, signatures, digests, encryption and password hashes.

Owns every use of the cryptography package: nothing else in Kagimori imports it. Knows bytes
and JOSE texts only; what a token means, how long a key lives and where it is kept are the
business of the packages above.
"""
