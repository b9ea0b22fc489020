"""
Who somebody is, and how that is proved.

Owns users and their passwords, the bounded hashing of chosen secrets, the memory of good
credentials, and the judgement of what is too weak to be a secret.
Knows nothing of clients, grants, tokens or HTTP.
"""
