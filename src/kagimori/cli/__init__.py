"""
The command line: one of three faces of the operator verbs in `kagimori.admin`.

Owns words, tables, colours, exit codes and questions. Knows no rule: what a verb may do is
decided below, and what it decided is only said here, in English or Japanese.
"""
