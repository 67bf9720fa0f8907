"""Each caller of a role reads each row of a table.

A policy such as `USING (true)` shows all rows. For signed-in callers, this may be meant: a list of
countries, or the profiles of a forum. The finding is an error if callers without a token read the rows, and
an info otherwise.

Small worlds decide: the policies are evaluated for several callers, on rows whose values differ in each
column that the policies name. So the rule finds `owner_id IS NOT NULL`, too, if the column is NOT NULL. The
models may state that all rows are public: `intends(Country, "SELECT", role=anonymous, rows=everyone)`. Then
the finding is an info.

A condition such as `id > 0`, `body IS NOT NULL` or `title <> ''` is true of as good as each row. So the rule
leaves out rows with NULL, an empty text, or a key that isn't positive. It leaves out moments in the future if
the default of their column is now. If these values alone hide rows, the finding says which. For callers
without a token, it is an error if the values are keys. It is a warning if each row with an owner is shown,
and an info otherwise: `published_at IS NOT NULL` may be meant. A column such as `is_published` isn't found.

A policy such as `auth.role() = 'authenticated'` admits the callers of a role whose claim `role` names that
role. On Supabase these are all of its callers, so they count as each caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Level, Remedy
from sqla_rls.analyze.lint.reach import Opening, Reach, Reaches, opening
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import PUBLIC


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO anonymous, authenticated USING (owner_id IS NOT NULL);
        GRANT SELECT ON docs TO anonymous, authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, is_public boolean NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY published ON docs FOR SELECT TO anonymous USING (is_public);
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO anonymous, authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        if not database.roles_with_privileges(name, "SELECT").count(role):
            continue
        found = reach.once("everyone-reads", _open)
        whose = ""
        if found is None and reach.named_by_claim(role):
            found = reach.once(("everyone-reads", role), partial(_open, claim=role))
            whose = ", which their claim role names,"
        if found is None:
            continue
        rows, policy = found[0], reach.policy(found[1])
        is_anonymous = database.is_anonymous(role) or (role == PUBLIC and _is_open_without_token(reach, rows))
        is_open = is_anonymous and not database.is_intended(reach.relation, "SELECT", role)
        evidence = [reach.evidence(rows.case, "{who} reads {row}")]
        if rows.denied is not None:
            evidence.append(reach.evidence(rows.denied, "{who} doesn't read {row}"))
        yield Finding(
            object=name,
            kind="table",
            policy=policy,
            role=role,
            command="SELECT",
            level=_level(rows) if is_open else "info",
            text=f"Each caller of role {role}{whose} reads each row of {name}{rows.text}.",
            evidence=evidence,
            remedy=Remedy(
                text="If all rows are public, state it: intends(…, rows=everyone), or an exemption.",
                sql=(
                    f"ALTER POLICY {database.quoted(policy)} ON {name} USING (…);"
                    if policy is not None
                    else None
                ),
                python='using=auth_uid("…")',
            ),
        )


def _level(rows: Opening) -> Level:
    """Return the level of rows that callers without a token read."""
    if rows.is_whole:
        return "error"
    # A column that an application fills in, such as a link, may open a row on purpose.
    return "warning" if rows.names_owner else "info"


def _is_open_without_token(reach: Reach, rows: Opening) -> bool:
    """Return whether a caller without a token reads each of *rows*: PUBLIC is the role of these, too."""
    places = {one.place[1] for one in rows.cases}
    return all(
        reach.is_true("select", case) for case in reach.cases(reach.unidentified) if case.place[1] in places
    )


def _open(reach: Reach, claim: str | None = None) -> tuple[Opening, str | None] | None:
    """Return the rows, and the policy that shows them by itself, if each caller reads as good as each row.

    With *claim*, the callers are those whose claim ``role`` is that.
    """
    callers = (reach.identified or reach.actors) if claim is None else reach.named_by_claim(claim)
    rows = opening(reach, list(reach.cases(callers)), ["select"])
    if rows is None:
        return None
    policies = (
        policy.name
        for policy in reach.relation.policies
        if policy.permissive
        and policy.command in ("ALL", "SELECT")
        and (policy.name, "using") in reach.answers
        and all(reach.is_true((policy.name, "using"), case) for case in rows.cases)
    )
    return rows, next(policies, None)
