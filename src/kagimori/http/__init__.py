"""
HTTP: the listeners, the endpoints and what operators ask; it knows no rule of OAuth.

Rules stand in `kagimori.oauth`; here bytes become their requests, and their answers bytes.
Starlette's router stands between, its Request and Response do not.
"""
