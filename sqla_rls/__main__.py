"""``python -m sqla_rls`` is the command ``sqla-rls``."""

from sqla_rls.cli import main

if __name__ == "__main__":
    main(prog_name="python -m sqla_rls")
