"""Kinds of policies, roles and tables, and what happens to tables in the revision that changes a policy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from sqla_rls import Policy, crud_policy, disable_row_level_security, force_row_level_security
from tests.tables.cases import READER, WRITER, Build, Case, Step, by_hand, next_name, stays, table


def policy(group: str, name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    """Table arguments, and the statements that they stand for, with {table} for the table."""
    relation = next_name("p")

    def step(declared: Any, sql: str) -> Step:
        def build(metadata: MetaData) -> None:
            # A function, since a declaration is at home on one table.
            table(metadata, relation, *declared())

        return Step(build, by_hand(relation, *filter(None, sql.split(";"))))

    return Case(
        group,
        name,
        (relation,),
        step(declared, sql),
        step(changed, changed_sql),
        Step(lambda metadata: _only_stays(metadata, relation), by_hand(relation)),
    )


def _only_stays(metadata: MetaData, relation: str) -> None:
    table(metadata, relation)


def kind(name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    """A policy "it" by its arguments, and how its statement goes on."""
    return policy(
        "Policies",
        name,
        lambda: [Policy("it", **declared)],
        f"CREATE POLICY it ON {{table}} {sql}",
        lambda: [Policy("it", **changed)],
        f"CREATE POLICY it ON {{table}} {changed_sql}",
    )


def roles(name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    return policy(
        "Roles",
        name,
        lambda: [Policy("it", roles=declared, using=True)],
        f"CREATE POLICY it ON {{table}} TO {sql} USING (true)",
        lambda: [Policy("it", roles=changed, using=True)],
        f"CREATE POLICY it ON {{table}} TO {changed_sql} USING (true)",
    )


_WRITER = f'"{WRITER.replace(chr(34), chr(34) * 2)}"'
_LONG = "ä" * 31 + "x"

POLICIES = [
    kind(
        "PERMISSIVE to RESTRICTIVE",
        {"using": "id = 1"},
        "USING (id = 1)",
        {"using": "id = 1", "permissive": False},
        "AS RESTRICTIVE USING (id = 1)",
    ),
    kind(
        "RESTRICTIVE, altered",
        {"using": "id = 1", "permissive": False},
        "AS RESTRICTIVE USING (id = 1)",
        {"using": "id = 2", "permissive": False},
        "AS RESTRICTIVE USING (id = 2)",
    ),
    *[
        kind(
            f"FOR {command} to FOR {other}",
            {"command": command, argument: "id = 1"},
            f"FOR {command} {argument.replace('_', ' ')} (id = 1)",
            {"command": other, another: "id = 1"},
            f"FOR {other} {another.replace('_', ' ')} (id = 1)",
        )
        for command, argument, other, another in (
            ("ALL", "using", "SELECT", "using"),
            ("SELECT", "using", "INSERT", "with_check"),
            ("INSERT", "with_check", "UPDATE", "using"),
            ("UPDATE", "using", "DELETE", "using"),
            ("DELETE", "using", "ALL", "using"),
        )
    ],
    kind(
        "USING only to WITH CHECK only",
        {"using": "id = 1"},
        "USING (id = 1)",
        {"with_check": "id = 1"},
        "WITH CHECK (id = 1)",
    ),
    kind(
        "USING only to both the same",
        {"using": "id = 1"},
        "USING (id = 1)",
        {"using": "id = 1", "with_check": "id = 1"},
        "USING (id = 1) WITH CHECK (id = 1)",
    ),
    kind(
        "both, of which WITH CHECK changes",
        {"using": "id = 1", "with_check": "id = 1"},
        "USING (id = 1) WITH CHECK (id = 1)",
        {"using": "id = 1", "with_check": "id = 2"},
        "USING (id = 1) WITH CHECK (id = 2)",
    ),
    kind(
        "both, swapped",
        {"using": "id = 1", "with_check": "id = 2"},
        "USING (id = 1) WITH CHECK (id = 2)",
        {"using": "id = 2", "with_check": "id = 1"},
        "USING (id = 2) WITH CHECK (id = 1)",
    ),
    kind(
        "USING taken away",
        {"using": "id = 1", "with_check": "id = 2"},
        "USING (id = 1) WITH CHECK (id = 2)",
        {"with_check": "id = 2"},
        "WITH CHECK (id = 2)",
    ),
    kind(
        "everything at once",
        {"command": "UPDATE", "roles": READER, "using": "id = 1"},
        f"FOR UPDATE TO {READER} USING (id = 1)",
        {"command": "INSERT", "roles": "PUBLIC", "with_check": "id = 2", "permissive": False},
        "AS RESTRICTIVE FOR INSERT WITH CHECK (id = 2)",
    ),
    policy(
        "Policies",
        "only the name",
        lambda: [Policy("it", using="id = 1")],
        "CREATE POLICY it ON {table} USING (id = 1)",
        lambda: [Policy('It\'s 100% "it"', using="id = 1")],
        'CREATE POLICY "It\'s 100% ""it""" ON {table} USING (id = 1)',
    ),
    policy(
        "Policies",
        "a name of 63 bytes",
        lambda: [Policy(_LONG, using="id = 1")],
        f'CREATE POLICY "{_LONG}" ON {{table}} USING (id = 1)',
        lambda: [Policy(_LONG, using="id = 2")],
        f'CREATE POLICY "{_LONG}" ON {{table}} USING (id = 2)',
    ),
    policy(
        "Policies",
        "two that swap their names",
        lambda: [Policy("a", using="id = 1"), Policy("b", using="id = 2")],
        "CREATE POLICY a ON {table} USING (id = 1);CREATE POLICY b ON {table} USING (id = 2)",
        lambda: [Policy("a", using="id = 2"), Policy("b", using="id = 1")],
        "CREATE POLICY a ON {table} USING (id = 2);CREATE POLICY b ON {table} USING (id = 1)",
    ),
    policy(
        "Policies",
        "crud_policy()",
        lambda: [crud_policy(READER, read=True, modify="id = 1")],
        f'CREATE POLICY "crud-{READER}-policy-select" ON {{table}} FOR SELECT TO {READER} USING (true);'
        f'CREATE POLICY "crud-{READER}-policy-insert" ON {{table}} FOR INSERT TO {READER} WITH CHECK (id = 1);'
        f'CREATE POLICY "crud-{READER}-policy-update" ON {{table}} FOR UPDATE TO {READER}'
        " USING (id = 1) WITH CHECK (id = 1);"
        f'CREATE POLICY "crud-{READER}-policy-delete" ON {{table}} FOR DELETE TO {READER} USING (id = 1)',
        lambda: [crud_policy(READER, read="id = 1", modify=None)],
        f'CREATE POLICY "crud-{READER}-policy-select" ON {{table}} FOR SELECT TO {READER} USING (id = 1)',
    ),
    policy(
        "Policies",
        "FORCE, and no more",
        lambda: [Policy("it", using=True), force_row_level_security()],
        "CREATE POLICY it ON {table} USING (true);ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        lambda: [Policy("it", using=True)],
        "CREATE POLICY it ON {table} USING (true)",
    ),
]

ROLES = [
    roles("PUBLIC to one", "PUBLIC", "PUBLIC", READER, READER),
    roles("one to several", READER, READER, [READER, WRITER], f"{READER}, {_WRITER}"),
    roles("several to one, with a quoted name", [WRITER, READER], f"{_WRITER}, {READER}", WRITER, _WRITER),
    roles("one to PUBLIC beside it", READER, READER, [READER, "PUBLIC"], "PUBLIC"),
    roles("CURRENT_USER to one", "CURRENT_USER", "CURRENT_USER", READER, READER),
    roles(
        "SESSION_USER beside one, to CURRENT_ROLE",
        ["SESSION_USER", READER],
        f"SESSION_USER, {READER}",
        "CURRENT_ROLE",
        "CURRENT_ROLE",
    ),
]


def relation(
    name: str,
    sql_name: str,
    relation_name: str,
    *,
    schema: str | None = None,
    prepare: tuple[str, ...] = (),
    mark: str | None = None,
    **options: Any,
) -> Case:
    """A kind of table, or name of one; the policy is the same everywhere."""

    def step(*policies: tuple[str, str]) -> Step:
        def build(metadata: MetaData) -> None:
            Table(
                relation_name,
                metadata,
                Column("id", Integer),
                Column("Name", Text),
                stays(),
                *[Policy("it", "SELECT", READER, using=using) for using, _ in policies],
                schema=schema,
                **options,
            )

        return Step(
            build,
            by_hand(
                sql_name,
                *[
                    f"CREATE POLICY it ON {{table}} FOR SELECT TO {READER} USING ({sql})"
                    for _, sql in policies
                ],
            ),
        )

    return Case(
        "Tables",
        name,
        (mark or relation_name,),
        step(("\"Name\" = 'x'", "\"Name\" = 'x'")),
        step(("\"Name\" = 'y'", "\"Name\" = 'y'")),
        step(),
        prepare,
    )


def steps(name: str, tables: tuple[str, ...], *three: tuple[Build, list[str]], group: str = "Tables") -> Case:
    created, changed, removed = (Step(build, sql) for build, sql in three)
    return Case(group, name, tables, created, changed, removed)


def two_schemas(using: str | None, other: str | None) -> tuple[Build, list[str]]:
    def build(metadata: MetaData) -> None:
        for schema, one in ((None, using), ("elsewhere", other)):
            policies = [Policy("it", using=one)] if one else []
            Table("in_both", metadata, Column("id", Integer), stays(), *policies, schema=schema)

    return build, [
        statement
        for table_, one in (("in_both", using), ("elsewhere.in_both", other))
        for statement in by_hand(table_, *([f"CREATE POLICY it ON {{table}} USING ({one})"] if one else []))
    ]


def mixin(using: str | None) -> tuple[Build, list[str]]:
    def build(metadata_: MetaData) -> None:
        class Base(DeclarativeBase):
            metadata = metadata_

        class Owned:
            owner: Mapped[str] = mapped_column(Text)

            @declared_attr.directive
            def __table_args__(cls) -> Any:
                policies = [Policy("it", using=cls.owner == using)] if using else []
                return (stays(), *policies)

        class A(Owned, Base):
            __tablename__ = "mixed_a"
            id: Mapped[int] = mapped_column(primary_key=True)

        class B(Owned, Base):
            __tablename__ = "mixed_b"
            id: Mapped[int] = mapped_column(primary_key=True)

    return build, _everywhere(("mixed_a", "mixed_b"), f"owner = '{using}'" if using else None)


def abstract(using: str | None) -> tuple[Build, list[str]]:
    def build(metadata_: MetaData) -> None:
        class Base(DeclarativeBase):
            metadata = metadata_

        class Owned(Base):
            __abstract__ = True
            id: Mapped[int] = mapped_column(primary_key=True)
            owner: Mapped[str] = mapped_column(Text)

            @declared_attr.directive
            def __table_args__(cls) -> Any:
                return (stays(), *([Policy("it", using=f"owner = '{using}'")] if using else []))

        class A(Owned):
            __tablename__ = "abstract_a"

        class B(Owned):
            __tablename__ = "abstract_b"

    return build, _everywhere(("abstract_a", "abstract_b"), f"owner = '{using}'" if using else None)


def inherited(using: str | None) -> tuple[Build, list[str]]:
    """Joined, with a policy on each table, and single, where two classes share one."""

    def build(metadata_: MetaData) -> None:
        class Base(DeclarativeBase):
            metadata = metadata_

        def arguments() -> Any:
            return (stays(), *([Policy("it", using=using)] if using else []))

        class Animal(Base):
            __tablename__ = "animals"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str] = mapped_column(Text)
            __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012
            __table_args__ = arguments()

        class Dog(Animal):
            __tablename__ = "animal_dogs"
            id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
            __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012
            __table_args__ = arguments()

        class Cat(Animal):
            lives: Mapped[int | None]
            __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012

    return build, _everywhere(("animals", "animal_dogs"), using)


def _everywhere(tables: tuple[str, ...], using: str | None) -> list[str]:
    return [
        statement
        for one in tables
        for statement in by_hand(one, *([f"CREATE POLICY it ON {{table}} USING ({using})"] if using else []))
    ]


def one_table(name: str, *items: Any) -> Build:
    return lambda metadata: _declare(metadata, name, items)


def _declare(metadata: MetaData, name: str, items: tuple[Any, ...]) -> None:
    made: list[Any] = [item() if callable(item) else item._copy() for item in items]
    Table(name, metadata, Column("id", Integer), *made)


def it(using: str, *, table_: str, command: str = "ALL") -> list[str]:
    return by_hand(table_, f"CREATE POLICY it ON {{table}} FOR {command} USING ({using})")


def a_policy(using: str) -> Any:
    return lambda: Policy("it", using=using)


def used_by_other(type_: Any) -> tuple[Build, list[str]]:
    using = "EXISTS (SELECT FROM used_by_other AS o WHERE o.owner = 'x')"

    def build(metadata: MetaData) -> None:
        one_table("used_by_other", Column("owner", type_), stays)(metadata)
        one_table("uses_other", a_policy(using), stays)(metadata)

    return build, [*by_hand("used_by_other"), *it(using, table_="uses_other")]


def mutual(operator: str) -> tuple[Build, list[str]]:
    def build(metadata: MetaData) -> None:
        for mine, other in (("mutual_a", "mutual_b"), ("mutual_b", "mutual_a")):
            one_table(mine, a_policy(f"id {operator} (SELECT id FROM {other})"), stays)(metadata)

    return build, [
        *it(f"id {operator} (SELECT id FROM mutual_b)", table_="mutual_a"),
        *it(f"id {operator} (SELECT id FROM mutual_a)", table_="mutual_b"),
    ]


TABLES = [
    relation("in another schema", "elsewhere.there", "there", schema="elsewhere"),
    relation("in a schema with a quoted name", '"Else Where"."There"', "There", schema="Else Where"),
    relation("a name in mixed case", '"MixedCase"', "MixedCase"),
    relation("a reserved word", '"select"', "select"),
    relation("a name with quotes, spaces, % and :", '"it\'s ""99%"" :x"', 'it\'s "99%" :x', mark="99%"),
    relation("unlogged", "unlogged_table", "unlogged_table", prefixes=["UNLOGGED"]),
    relation("partitioned", "parted", "parted", postgresql_partition_by="LIST (id)"),
    relation(
        "a partition",
        "parted_by_hand_1",
        "parted_by_hand_1",
        prepare=(
            'CREATE TABLE parted_by_hand (id int, "Name" text) PARTITION BY LIST (id)',
            "CREATE TABLE parted_by_hand_1 PARTITION OF parted_by_hand FOR VALUES IN (1)",
        ),
    ),
    relation(
        "with an heir",
        "parent_by_hand",
        "parent_by_hand",
        prepare=(
            'CREATE TABLE parent_by_hand (id int, "Name" text)',
            "CREATE TABLE parent_by_hand_heir () INHERITS (parent_by_hand)",
        ),
    ),
    relation(
        "an heir",
        "heir_by_hand",
        "heir_by_hand",
        prepare=(
            'CREATE TABLE heir_of_hand (id int, "Name" text)',
            "CREATE TABLE heir_by_hand () INHERITS (heir_of_hand)",
        ),
    ),
    steps(
        "the same name in two schemas",
        ("in_both",),
        two_schemas("id = 1", "id = 2"),
        two_schemas("id = 1", "id = 3"),
        two_schemas("id = 1", None),
    ),
    steps("of a mixin", ("mixed_a", "mixed_b"), mixin("x"), mixin("y"), mixin(None)),
    steps("of an abstract base", ("abstract_a", "abstract_b"), abstract("x"), abstract("y"), abstract(None)),
    steps(
        "joined and single inheritance of classes",
        ("animals", "animal_dogs"),
        inherited("id = 1"),
        inherited("id = 2"),
        inherited(None),
    ),
]

REVISIONS = [
    steps(
        "the table gets another name",
        ("renamed_old", "renamed_new"),
        (one_table("renamed_old", a_policy("id = 1"), stays), it("id = 1", table_="renamed_old")),
        (one_table("renamed_new", a_policy("id = 1"), stays), it("id = 1", table_="renamed_new")),
        (one_table("renamed_new", stays), by_hand("renamed_new")),
        group="In one revision",
    ),
    steps(
        "the table is dropped",
        ("dropped_table",),
        (one_table("dropped_table", a_policy("id = 1"), stays), it("id = 1", table_="dropped_table")),
        (lambda metadata: None, []),
        (one_table("dropped_table", a_policy("id = 1"), stays), it("id = 1", table_="dropped_table")),
        group="In one revision",
    ),
    steps(
        "a new column is used",
        ("new_column",),
        (one_table("new_column", a_policy("id = 1"), stays), it("id = 1", table_="new_column")),
        (
            one_table("new_column", Column("owner", Text), a_policy("owner = 'x'"), stays),
            it("owner = 'x'", table_="new_column"),
        ),
        (one_table("new_column", Column("owner", Text), stays), by_hand("new_column")),
        group="In one revision",
    ),
    steps(
        "a column that was used is dropped",
        ("dropped_column",),
        (
            one_table("dropped_column", Column("owner", Text), a_policy("owner = 'x'"), stays),
            it("owner = 'x'", table_="dropped_column"),
        ),
        (one_table("dropped_column", a_policy("id = 1"), stays), it("id = 1", table_="dropped_column")),
        (one_table("dropped_column", stays), by_hand("dropped_column")),
        group="In one revision",
    ),
    steps(
        "a column that is used is retyped",
        ("retyped_column",),
        (
            one_table("retyped_column", Column("owner", String(20)), a_policy("owner IN ('x', 'y')"), stays),
            it("owner IN ('x', 'y')", table_="retyped_column"),
        ),
        (
            one_table("retyped_column", Column("owner", Text), a_policy("owner IN ('x', 'y')"), stays),
            it("owner IN ('x', 'y')", table_="retyped_column"),
        ),
        (one_table("retyped_column", Column("owner", String(5)), stays), by_hand("retyped_column")),
        group="In one revision",
    ),
    steps(
        "a used column of another table is retyped, and then that table dropped",
        ("used_by_other", "uses_other"),
        used_by_other(String(20)),
        used_by_other(Text()),
        (one_table("uses_other", stays), by_hand("uses_other")),
        group="In one revision",
    ),
    steps(
        "two tables whose policies name each other are made, and then dropped",
        ("mutual_a", "mutual_b"),
        mutual("IN"),
        mutual("NOT IN"),
        (lambda metadata: None, []),
        group="In one revision",
    ),
    steps(
        "the table is opened by an explicit word",
        ("opened_table",),
        (one_table("opened_table", a_policy("id = 1"), stays), it("id = 1", table_="opened_table")),
        (one_table("opened_table", disable_row_level_security), []),
        (one_table("opened_table", stays), by_hand("opened_table")),
        group="In one revision",
    ),
]
