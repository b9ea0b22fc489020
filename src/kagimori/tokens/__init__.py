"""
Tokens: issuing and verifying access tokens, the life of refresh-token families, the deny set.

Owns what a token looks like, who may redeem it and when it is over. Refuses to know clients,
users' passwords, HTTP and which grant asked; it takes from a user's document the two fields
that end a family, and nothing else.
"""
