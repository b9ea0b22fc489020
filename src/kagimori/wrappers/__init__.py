"""
Wrapping keys: what keeps the secrets of a ring unreadable where the ring is stored.

Owns envelopes and the calls that open them. Refuses to know rings, dates and stores. Imported
by `kagimori.opening` and by compositions, lazily.
"""
