"""
What tests stand on: a clock that is moved by hand, stores in memory, conformance suites.

Shipped, because whoever writes a store, a wrapper or an application on Kagimori needs them
too. Nothing here is imported by the product.
"""
