"""
Measures what Kagimori promises about speed and size. Run by `make bench`.

Rules of these modules:

1. A figure is a ratio inside one run: the peer and we take turns on the same machine, and the
   median of at least nine pairs counts. Absolute numbers are shown beside it, and prove nothing.
2. Nothing is written down that was not measured: a figure whose peer cannot be had is left
   out, and the run says so.
3. Both sides do the same work under the same conditions, or the figure says how they differ.
"""
