"""
The operator's verbs: one set, which the command line, the API and the console share.

Owns what an operator may do, what is refused and why, and the audit trail. Refuses to know
how a verb is asked for and how its answer is shown.
"""
