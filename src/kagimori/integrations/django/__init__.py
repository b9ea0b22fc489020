"""
Sessions, signed values and the peer endpoint for Django: an app to install.

``INSTALLED_APPS += ["kagimori.integrations.django"]``. The ring is what ``settings`` name, else
what the environment names (`kagimori.open_ring`); it is opened once in a process, at first use.
"""
