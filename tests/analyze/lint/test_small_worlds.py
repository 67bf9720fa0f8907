"""Small worlds decide about access: which rules find a policy, at which level."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.run import lint
from sqla_rls.analyze.lint.target import open_target
from sqla_rls.analyze.sides import Side
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.analyze.lint.examples import IS_MEMBER, OWN, TABLE, Examples, policy, run, shown, unknown
from tests.support.servers import cleared_server

CASES = {
    "true for authenticated": (policy("true"), ["info everyone-reads public.docs"]),
    "true for anonymous": (policy("true", to="anonymous"), ["error everyone-reads public.docs"]),
    "true in other words": (policy("org_id = org_id OR true"), ["info everyone-reads public.docs"]),
    "signed in": (policy("(SELECT auth.user_id()) IS NOT NULL"), ["info everyone-reads public.docs"]),
    "signed in, with a subject that is a uuid": (
        policy("auth.uid() IS NOT NULL"),
        ["info everyone-reads public.docs"],
    ),
    "signed in, with a subject that a cast makes a uuid": (
        policy("(auth.user_id())::uuid IS NOT NULL"),
        ["info everyone-reads public.docs"],
    ),
    "own rows, by a uuid that is a text again": (
        policy("owner_id = (SELECT auth.uid())::text AND is_public OR auth.uid() IS NOT NULL"),
        ["info everyone-reads public.docs"],
    ),
    "true of as good as each row": (
        policy("id > 0", to="anonymous"),
        ["error everyone-reads public.docs"],
    ),
    "true of each row with an owner": (
        policy(f"owner_id <> '' OR {OWN}", to="anonymous"),
        ["warning everyone-reads public.docs"],
    ),
    "true of each row with a note": (
        "ALTER TABLE docs ADD note text;" + policy("note IS NOT NULL", to="anonymous"),
        ["info everyone-reads public.docs"],
    ),
    "true of each row that has ended": (
        "ALTER TABLE docs ADD ended_at timestamptz;" + policy("ended_at IS NOT NULL", command="DELETE"),
        ["info everyone-writes public.docs"],
    ),
    "changing each row with a note": (
        "ALTER TABLE docs ADD note text;" + policy("note IS NOT NULL", command="UPDATE"),
        ["warning everyone-writes public.docs"],
    ),
    "true of public rows": (policy("is_public AND id > 0", to="anonymous"), []),
    "own rows": (policy(OWN), []),
    "the role itself, by a claim": (
        policy("(SELECT auth.jwt()) ->> 'role' = 'authenticated'", command="ALL"),
        [
            "error everyone-writes public.docs",
            "error everyone-writes public.docs",
            "info everyone-reads public.docs",
            "info everyone-writes public.docs",
        ],
    ),
    "another role, by a claim": (policy("(SELECT auth.jwt()) ->> 'role' = 'admin'", command="ALL"), []),
    "public rows, and own ones": (policy(f"is_public OR {OWN}", to="PUBLIC"), []),
    "a NULL subject": (policy(f"(SELECT auth.user_id()) IS NULL OR {OWN}"), ["error no-subject public.docs"]),
    "a default that is somebody": (
        policy("owner_id = coalesce((SELECT auth.user_id()), 'bob')"),
        ["error no-subject public.docs"],
    ),
    "a member, by a function": (IS_MEMBER + policy("is_member(org_id)"), []),
    "a member, by a function that keeps the plan of another": (
        """
        CREATE FUNCTION subject() RETURNS text LANGUAGE sql IMMUTABLE
          AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
        CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.subject(); END';
        """
        + IS_MEMBER.replace("auth.user_id()", "public.kept()")
        + policy("(SELECT public.kept()) IS NULL OR is_member(org_id)"),
        ["error no-subject public.docs"],
    ),
    "a function that admits those without a subject": (
        IS_MEMBER + policy("(SELECT auth.user_id()) IS NULL OR is_member(org_id)"),
        ["error no-subject public.docs"],
    ),
    "a member of anything": (
        "ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO authenticated;"
        "CREATE POLICY m ON members TO authenticated USING (user_id = (SELECT auth.user_id()));"
        + policy("EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id)"),
        [],
    ),
    "public rows, and those of a member": (
        "ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO authenticated;"
        "CREATE POLICY m ON members TO authenticated USING (user_id = (SELECT auth.user_id()));"
        + policy("org_id IN (SELECT m.org_id FROM members AS m) OR is_public"),
        [],
    ),
    "rows of a public parent": (
        "CREATE TABLE orgs (id int PRIMARY KEY, user_id text, is_open boolean NOT NULL);"
        "ALTER TABLE docs ADD FOREIGN KEY (org_id) REFERENCES orgs; GRANT SELECT ON orgs TO authenticated;"
        + policy("org_id IN (SELECT o.id FROM orgs AS o WHERE o.is_open)"),
        ["info membership-without-caller public.docs"],
    ),
    "an admin of the organization, who isn't the caller": (
        "ALTER TABLE members ADD role text; GRANT SELECT ON members TO authenticated;"
        + policy("org_id IN (SELECT m.org_id FROM members AS m WHERE m.role = 'admin') OR is_public"),
        ["error membership-without-caller public.docs"],
    ),
    "a column compared with itself": (
        "GRANT SELECT ON members TO authenticated;"
        + policy("EXISTS (SELECT FROM members m WHERE m.org_id = org_id AND m.user_id = auth.user_id())"),
        ["error wrong-correlation public.docs"],
    ),
    "the key of another table, and names that are reserved words": (
        'CREATE TABLE "group" (id int PRIMARY KEY);'
        'ALTER TABLE docs ADD FOREIGN KEY (org_id) REFERENCES "group";'
        'CREATE TABLE "user" ("group" int REFERENCES "group", who text, PRIMARY KEY ("group", who));'
        'GRANT SELECT ON "user" TO authenticated;'
        + policy(
            'EXISTS (SELECT FROM "user" u WHERE u."group" = docs.id AND u.who = (SELECT auth.user_id()))'
        ),
        ["error wrong-correlation public.docs"],
    ),
    "rows without a tenant, for sessions without one": (
        "ALTER TABLE docs ADD tenant text;"
        + policy("tenant IS NOT DISTINCT FROM nullif(current_setting('app.tenant', true), '')"),
        ["error no-subject public.docs"],
    ),
    "a constraint on two parents with unique names": (
        "CREATE TABLE people (id text PRIMARY KEY, name text UNIQUE);"
        "ALTER TABLE docs ADD other text NOT NULL REFERENCES people, ADD CHECK (owner_id <> other),"
        " ADD FOREIGN KEY (owner_id) REFERENCES people;" + policy(OWN, command="ALL"),
        [],
    ),
    "a parent with constraints on what decides nothing": (
        "CREATE TABLE plans (id int PRIMARY KEY, name text NOT NULL CHECK (name IN ('free', 'paid')));"
        "CREATE TABLE orgs (id int PRIMARY KEY, plan_id int NOT NULL REFERENCES plans, starts date NOT NULL,"
        " ends date NOT NULL, CHECK (starts < ends));"
        "ALTER TABLE docs ADD FOREIGN KEY (org_id) REFERENCES orgs;" + policy("true", to="anonymous"),
        ["error everyone-reads public.docs"],
    ),
    "documents in an array": (
        "ALTER TABLE docs ADD links jsonb[] NOT NULL;"
        + policy(f"{OWN} OR cardinality(links) >= 0", to="anonymous"),
        ["error everyone-reads public.docs"],
    ),
    "a setting that is empty": (policy("owner_id = current_setting('app.user', true)"), []),
    "a function that asks for one of two roles": (
        "CREATE FUNCTION is_user() RETURNS boolean LANGUAGE sql STABLE"
        " AS $$ SELECT current_user = 'authenticated' $$;"
        + policy("is_user()", to="anonymous, authenticated"),
        ["info everyone-reads public.docs"],
    ),
    "a setting that is one of two roles": (
        policy("current_setting('role') = 'authenticated'", to="anonymous, authenticated"),
        ["info everyone-reads public.docs"],
    ),
    "deleting all": (
        policy(OWN) + policy("true", command="DELETE", name="d"),
        ["error everyone-writes public.docs"],
    ),
}

WORLDS = [
    "everyone-reads",
    "everyone-writes",
    "no-subject",
    "membership-without-caller",
    "wrong-correlation",
    "rows-given-away",
    "check-wider-than-using",
]


@pytest.mark.exhaustive
def test_small_worlds_decide(examples: Examples, subtests: pytest.Subtests) -> None:
    for name, (sql, expected) in CASES.items():
        with subtests.test(name):
            found = examples.look(TABLE + sql, select=WORLDS)
            assert shown(found) == expected
            assert unknown(found) == []
            for one in found.findings:
                assert one.evidence[0].kind == "counterexample"


def test_a_counterexample_has_its_row(examples: Examples) -> None:
    sql, _ = CASES["a NULL subject"]
    (found,) = examples.look(TABLE + sql, select=["no-subject"]).findings

    assert found.evidence[0].text == "authenticated without claims reads public.docs(id=2, owner_id=bob)"
    assert found.evidence[0].data["rows"]["public.docs"][-1]["owner_id"] == "bob"


@pytest.mark.exhaustive
def test_rows_that_public_reads_are_found_without_any_role() -> None:
    tables = "".join(
        f"CREATE TABLE {name} (id int PRIMARY KEY, owner_id text NOT NULL);"
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {name} USING (true);"
        for name in ("docs", "notes", "secrets")
    )
    # Only the scratch database decides about rows that a function reads.
    in_scratch = """
    CREATE FUNCTION is_shown() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
      AS 'SELECT (SELECT count(*) FROM public.secrets) >= 0';
    ALTER POLICY p ON notes USING (auth.user_id() IS NOT NULL AND is_shown());
    GRANT SELECT, DELETE ON docs TO PUBLIC; GRANT SELECT ON notes TO PUBLIC;
    """
    with cleared_server() as server:
        url = server.url(server.create_database())
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
            run(connection, tables + in_scratch)
        target = url.render_as_string()
        with open_target(target, Side.parse(target)) as database:
            found = lint(database, target=target, select=WORLDS)
        with create_engine(url, poolclass=NullPool).begin() as connection:
            run(connection, "CREATE ROLE owner; CREATE ROLE app; ALTER TABLE docs OWNER TO owner;")
        with open_target(target, Side.parse(target)) as database:
            with_roles = lint(database, target=target, select=["everyone-writes"])
        with create_engine(url, poolclass=NullPool).connect() as connection:
            roles = connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'")).all()

    assert [(one.level, one.rule, one.object, one.role) for one in found.findings] == [
        ("error", "everyone-reads", "public.docs", "PUBLIC"),
        ("error", "everyone-writes", "public.docs", "PUBLIC"),
        ("info", "everyone-reads", "public.notes", "PUBLIC"),
    ]
    assert found.findings[0].evidence[0].text == "alice as PUBLIC reads public.docs(id=1)"
    # A role that has the privilege by PUBLIC reaches the same rows.
    assert {one.role for one in with_roles.findings} == {"app", "PUBLIC"}
    assert sorted(roles) == ["app", "owner", "postgres"]


@pytest.mark.exhaustive
def test_a_role_that_is_named_public_is_refused_if_it_has_more_rights(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    sql = TABLE + "GRANT SELECT ON members TO PUBLIC;" + policy("true") + 'CREATE ROLE "PUBLIC";'
    for more in (
        'ALTER ROLE "PUBLIC" BYPASSRLS',
        'ALTER ROLE "PUBLIC" SUPERUSER',
        'CREATE ROLE readers; GRANT readers TO "PUBLIC"',
        'GRANT SELECT ON docs TO "PUBLIC"',
        'ALTER TABLE members OWNER TO "PUBLIC"',
        'CREATE POLICY q ON docs TO "PUBLIC" USING (true)',
    ):
        with subtests.test(more):
            found = examples.look(f"{sql} {more};", select=WORLDS)
            assert len(unknown(found)) == len(found.findings) == len(WORLDS)
            assert all('ALTER ROLE "PUBLIC" RENAME TO' in one.evidence[0].text for one in found.findings)
    assert shown(examples.look(sql, select=WORLDS)) == ["info everyone-reads public.docs"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("claim", "is_found"),
    [
        ("https://example.com/user_metadata", True),
        ("custom:userMetadata", True),
        ("Client_Metadata", True),
        ("https://example.com/app_metadata", False),
        ("user_metadata/of_app", False),
    ],
)
def test_metadata_that_users_write_may_be_in_a_namespace(
    examples: Examples, claim: str, is_found: bool
) -> None:
    sql = TABLE + policy(f"(SELECT auth.jwt()) -> '{claim}' ->> 'role' = 'admin'")
    found = examples.look(sql, select=["writable-claims"])
    assert shown(found) == (["error writable-claims public.docs"] if is_found else [])
    for one in found.findings:
        assert [evidence.kind for evidence in one.evidence] == ["counterexample", "catalog"]


def test_tables_of_one_shape_have_their_own_names(examples: Examples) -> None:
    sql = "".join(
        f"CREATE TABLE {name} (id int PRIMARY KEY, owner_id text NOT NULL, note_of_{name} text);"
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; GRANT SELECT ON {name} TO authenticated;"
        f"CREATE POLICY of_{name} ON {name} USING (owner_id = 'x' OR auth.user_id() IS NULL);"
        f"CREATE POLICY a ON {name} USING ({name}.owner_id = (SELECT u.id FROM auth.user_id() AS u (id)));"
        for name in ("apples", "pears")
    )
    found = examples.look(sql, select=["no-subject"]).findings

    assert [(one.object, one.policy) for one in found] == [
        ("public.apples", "of_apples"),
        ("public.pears", "of_pears"),
    ]
    assert [one.evidence[0].text.partition("reads ")[2].partition("(")[0] for one in found] == [
        "public.apples",
        "public.pears",
    ]
