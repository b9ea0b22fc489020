"""
Where the server's data lies: the `Store` seam and the adapters under it.

`store` is foundation: the protocol, and `transact`, the only loop that retries. The other
modules are adapters; nothing but the composition root imports them. A store knows tenants,
kinds, ids, versions and times, and never what a document means.
"""
