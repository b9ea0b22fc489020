"""
The life of keys: timelines, rings, policies, and who holds them live.

Owns when a key is published, signs, verifies and ends, for all three uses. Refuses to know
tokens, clients and HTTP, and which store or vault lies behind a protocol.
"""
