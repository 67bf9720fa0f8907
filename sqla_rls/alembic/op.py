"""Alembic's own ``op``, whose type in op.pyi has our operations, too.

A migration that type checkers read imports it: ``from sqla_rls.alembic import op``.
"""

import sys

from alembic import op

sys.modules[__name__] = op
