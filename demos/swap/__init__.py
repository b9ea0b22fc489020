"""
A slot swap, twice: with a key ring in each slot, which is the problem, and with one for all.

It owns the slots, the switch before them, the browser, and the story that they play. It knows of
Kagimori what any application knows: `kagimori.open_ring` and the integrations.
"""
