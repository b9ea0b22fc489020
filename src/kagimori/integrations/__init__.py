"""
Kagimori in the frameworks of others: sessions, cookies and tokens that a key ring protects.

One module for each framework, which imports that framework and no other; what they share
(`cookies`, `sessions`, `csrf`, `peer`) imports none. No rule about keys stands here: these
modules hold protectors, and know HTTP.
"""
