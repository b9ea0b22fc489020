"""
The format and the rings of ASP.NET Core Data Protection, read and written.

Owns payloads, derivation, the ring's XML, and which key protects. Refuses to know where a ring
is stored and what wraps its keys: those are a `KeyStore` and a `KeyWrapper`.
"""
