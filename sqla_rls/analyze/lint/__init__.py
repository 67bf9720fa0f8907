"""Rules with evidence: openings, dead ends, slow policies and notes of a database.

``lint()`` of ``run.py`` runs the rules of ``rules/``.
"""
