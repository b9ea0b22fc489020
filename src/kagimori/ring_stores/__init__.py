"""
Where the elements of protection rings are stored, each store laid out as .NET lays it out.

Owns reading, comparing and swapping. Refuses to know what the elements mean, and to retry.
Imported by `kagimori.opening` and by compositions, lazily.
"""
