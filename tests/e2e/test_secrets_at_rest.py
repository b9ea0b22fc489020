"""
No secret lies readable in folder, database, write-ahead log, logs or metrics.
"""
