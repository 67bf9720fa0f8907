"""A rule, or another program, has no answer about a part of the target.

The role of the connection may lack a right, a statement may take too long, or the scratch database can't be
built. A fault may hide in that part. So the run fails, as with a finding, until you remove the cause or
review the part yourself.

The evidence is the cause. The finding has the level of the rules that asked: it is an error if one of them
looks for openings or dead ends. `--fail-on unknown` fails at each level. `--select` keeps this rule, and
`--ignore unknown` leaves it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqla_rls.analyze.lint.database import Database, Unknown, listed
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="unknown",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY recent ON docs FOR SELECT TO authenticated USING (age(xmin) < 1000);
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    by_part: dict[tuple[str, str | None], list[Unknown]] = {}
    for one in database.unknown:
        by_part.setdefault((one.object, one.role), []).append(one)
    for (name, role), parts in by_part.items():
        asked = {rule: level for part in parts for rule, level in database.unknown[part].items()}
        yield Finding(
            object=name,
            kind=parts[0].kind,
            role=role,
            level=LEVELS[min(map(LEVELS.index, asked.values()), default=0)],
            text=_sentence(parts[0], asked),
            evidence=[
                Evidence(kind="catalog", text=reason, data={"rules": [*asked]})
                for reason in dict.fromkeys(part.reason for part in parts)
            ],
            remedy=_remedy(parts[0]),
        )


def _sentence(part: Unknown, asked: Collection[str]) -> str:
    if part.kind == "program":
        return f"{part.object} doesn't run, and its findings are missing."
    if part.kind == "rule":
        return f"Rule {part.object} has no answer."
    who = f"{'Rule' if len(asked) == 1 else 'Rules'} {listed(asked)}" if asked else "No rule"
    verb = "has" if len(asked) == 1 else "have"
    access = f"the access of role {part.role} to {part.object}" if part.role else part.object
    return (
        f"{who} {verb} no answer about {access}." if asked else f"{who} has an answer about all of {access}."
    )


def _remedy(part: Unknown) -> Remedy:
    if part.kind == "program":
        return Remedy(text=f"Remove the cause, or leave {part.object} out of --with.")
    if part.kind == "rule":
        return Remedy(text=f"Remove the cause, or leave the rule out: --ignore {part.object}.")
    return Remedy(
        text=f"Remove the cause. Otherwise review {part.object}, and state the reason as an exemption."
    )
