"""
The rules of the OAuth endpoints, below HTTP.

Owns tenants, clients and resources, client authentication, the grants, the token, revocation
and introspection endpoints, and the metadata document.
Every grant and every refresh passes one choke point, `kagimori.oauth.admission`.
Knows nothing of requests' bytes, headers' syntax, or which store or key wrapper is in use.
"""
