"""The slot of docs/guide/replication.md: it needs ``wal_level = logical``, which pages don't have."""

from dataclasses import replace
from itertools import pairwise

import psycopg
import pytest

from sqla_rls.testing.postgres import Server
from tests.support import pages
from tests.support.blocks import blocks
from tests.support.suite import find_installation, newest

pytestmark = pytest.mark.exhaustive

# A slot returns changes that the log has on disk.
SETTINGS = {"wal_level": "logical", "synchronous_commit": "on"}
DOCUMENT = pages.ROOT / "docs" / "guide" / "replication.md"


@pytest.mark.one_postgres
def test_a_slot_reads_the_rows_that_the_policies_hide() -> None:
    found = list(blocks(DOCUMENT.read_text("utf-8")))
    marked = [block for block in found if block.tested_by is not None]
    outputs = {before: after for before, after in pairwise(marked) if after.language == "text"}
    with Server.start(find_installation(newest()), settings=SETTINGS) as server:
        page = pages.Page(server)
        url = server.url("postgres").set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as superuser:
            superuser.execute("ALTER ROLE page_owner REPLICATION")
        try:
            for block in [found[0], *marked]:
                if block.language != "text":
                    shown = outputs[block].code if block in outputs else None
                    with page.entered():
                        assert page.run(replace(block, shown=shown)) is None
        finally:
            page.close()
    assert outputs
