"""Small worlds decide about access: what is found, at which level, and what isn't."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.exemptions import read_settings
from sqla_rls.analyze.lint.run import lint
from sqla_rls.analyze.lint.target import open_target
from sqla_rls.analyze.sides import Side
from sqla_rls.catalog.query import undone
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.analyze.lint.examples import IS_MEMBER, OWN, TABLE, Examples, run, shown, unknown
from tests.support.servers import cleared_server

HAS_MEMBER = IS_MEMBER.replace(" AND m.user_id = auth.user_id()", "")


def policy(using: str, *, to: str = "authenticated", command: str = "SELECT", name: str = "p") -> str:
    return f"CREATE POLICY {name} ON docs FOR {command} TO {to} USING ({using});"


CASES = {
    "true for authenticated": (policy("true"), ["info everyone-reads public.docs"]),
    "true for anonymous": (policy("true", to="anonymous"), ["error everyone-reads public.docs"]),
    "true in other words": (policy("org_id = org_id OR true"), ["info everyone-reads public.docs"]),
    "signed in": (policy("(SELECT auth.user_id()) IS NOT NULL"), ["info everyone-reads public.docs"]),
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


def test_the_rights_of_inner_views_and_functions_count(examples: Examples) -> None:
    sql = """
    CREATE ROLE owner; CREATE ROLE middle;
    GRANT CREATE ON SCHEMA public TO owner, middle;
    SET ROLE owner;
    CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON docs TO authenticated USING (owner_id = 'me');
    CREATE VIEW invoker WITH (security_invoker = t) AS SELECT * FROM docs;
    CREATE VIEW over_invoker AS SELECT * FROM invoker;
    CREATE VIEW inner_docs AS SELECT * FROM docs;
    CREATE FUNCTION inner_all() RETURNS SETOF docs LANGUAGE sql SECURITY DEFINER SET search_path = ''
      AS 'SELECT * FROM public.docs';
    REVOKE ALL ON FUNCTION inner_all() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION inner_all() TO middle;
    GRANT SELECT ON docs, invoker, over_invoker TO authenticated;
    GRANT SELECT ON inner_docs TO middle;
    SET ROLE middle;
    CREATE VIEW outer_docs AS SELECT * FROM inner_docs;
    GRANT SELECT ON outer_docs TO authenticated;
    CREATE FUNCTION outer_all() RETURNS SETOF docs LANGUAGE sql SECURITY DEFINER SET search_path = ''
      AS 'SELECT * FROM public.inner_all()';
    RESET ROLE;
    """
    found = examples.look(sql, select=["definer-reads-protected", "view-without-invoker"])
    assert shown(found) == [
        "error definer-reads-protected public.outer_all()",
        "error view-without-invoker public.outer_docs",
    ]
    for one in found.findings:
        assert "doesn't hold for owner, with whose rights it reads" in one.evidence[-1].text
        assert one.evidence[-1].data["acts_as"] == ["owner"]


#: Policies and privileges of the table docs beside the own rows of authenticated; whether the view and the
#: function of reporting are found, and the parts without an answer.
OTHER_POLICIES = {
    "all rows": ("CREATE POLICY r ON docs TO reporting USING (true)", "error", 0),
    "all rows of a caller without a subject": (
        "CREATE POLICY r ON docs TO reporting USING (auth.user_id() IS NULL)",
        "error",
        0,
    ),
    "all rows, by the policy of a group": (
        "CREATE ROLE readers; GRANT readers TO reporting; CREATE POLICY r ON docs TO readers USING (true)",
        "error",
        0,
    ),
    "callers without a privilege": (
        "CREATE POLICY r ON docs TO reporting USING (true); REVOKE ALL ON docs FROM authenticated",
        "warning",
        0,
    ),
    "a restrictive policy of the callers": (
        f"""CREATE POLICY r ON docs TO reporting USING ({OWN});
        CREATE POLICY s ON docs AS RESTRICTIVE TO authenticated USING (is_public)""",
        "error",
        0,
    ),
    "policies of a table that a policy reads": (
        """ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO authenticated, reporting;
        CREATE POLICY a ON members TO authenticated USING (user_id = auth.user_id());
        CREATE POLICY r ON members TO reporting USING (true);
        CREATE POLICY t ON docs TO authenticated, reporting USING (org_id IN (SELECT m.org_id FROM members m))
        """,
        "error",
        0,
    ),
    "the same condition": (f"CREATE POLICY r ON docs TO reporting USING ({OWN} AND id > 0)", None, 0),
    "the same policy, and callers without a privilege": (
        f"CREATE POLICY r ON docs USING ({OWN}); REVOKE ALL ON docs FROM authenticated",
        None,
        0,
    ),
    "fewer rows": (f"CREATE POLICY r ON docs TO reporting USING ({OWN} AND is_public)", None, 0),
    "no policy": ("", None, 0),
    "no privilege": (
        "CREATE POLICY r ON docs TO reporting USING (true); REVOKE ALL ON docs FROM reporting",
        None,
        0,
    ),
    "what no small world decides": ("CREATE POLICY r ON docs TO reporting USING (age(xmin) < 9)", None, 2),
}


@pytest.mark.exhaustive
def test_policies_of_the_owner_of_a_view_or_function_count(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    before = f"""
    CREATE ROLE reporting; GRANT SELECT ON docs TO reporting;
    CREATE POLICY own ON docs TO authenticated USING ({OWN});
    """
    after = """
    CREATE VIEW every_doc AS SELECT * FROM docs; ALTER VIEW every_doc OWNER TO reporting;
    GRANT SELECT ON every_doc TO authenticated;
    CREATE FUNCTION all_docs() RETURNS SETOF docs LANGUAGE sql SECURITY DEFINER SET search_path = ''
      AS 'SELECT * FROM public.docs';
    ALTER FUNCTION all_docs() OWNER TO reporting;
    REVOKE ALL ON FUNCTION all_docs() FROM PUBLIC; GRANT EXECUTE ON FUNCTION all_docs() TO authenticated;
    """
    for name, (sql, level, undecided) in OTHER_POLICIES.items():
        with subtests.test(name):
            found = examples.look(
                f"{TABLE}{before}{sql};{after}", select=["definer-reads-protected", "view-without-invoker"]
            )
            assert [one for one in shown(found) if " unknown " not in one] == (
                []
                if level is None
                else [
                    f"{level} definer-reads-protected public.all_docs()",
                    f"{level} view-without-invoker public.every_doc",
                ]
            )
            assert len(unknown(found)) == undecided
            for one in found.findings[: 0 if level is None else None]:
                assert one.evidence[0].kind == "counterexample"
                assert one.evidence[-1].data["roles"] == ["authenticated"]
                assert one.evidence[-1].data["acts_as"] == ["reporting"]


#: Bodies of a function whose owner may delete all rows and read own ones, its language, whether it is found,
#: and the parts without an answer.
BODIES = {
    "a command in a comment": ("SELECT * FROM public.docs -- DELETE", "sql", False, 0),
    "a command in a text": ("SELECT * FROM public.docs WHERE owner_id = 'delete update'", "sql", False, 0),
    "a command": ("DELETE FROM public.docs RETURNING *", "sql", True, 0),
    "a command in WITH": (
        "BEGIN RETURN QUERY WITH d AS (DELETE FROM public.docs RETURNING *) SELECT * FROM d; END",
        "plpgsql",
        True,
        0,
    ),
    "a merge": (
        """BEGIN MERGE INTO public.docs AS d USING public.members AS m ON m.org_id = d.org_id
        WHEN MATCHED THEN DELETE; END""",
        "plpgsql",
        True,
        0,
    ),
    "a body of SQL": ("BEGIN ATOMIC DELETE FROM public.docs RETURNING *; END", "atomic", True, 0),
    "a computed command on a table that the body names": (
        "BEGIN PERFORM FROM public.docs; EXECUTE 'DEL' || 'ETE FROM public.docs'; END",
        "plpgsql",
        True,
        0,
    ),
    "a computed command on any table": (
        "BEGIN EXECUTE pg_catalog.format('DELETE FROM public.%I', 'do' || 'cs'); END",
        "plpgsql",
        False,
        1,
    ),
    # The caller prepares it, as DELETE FROM docs.
    "a prepared statement": ("EXECUTE prepared; SELECT * FROM public.docs", "sql", True, 0),
    "a prepared query": (
        "BEGIN CREATE TEMPORARY TABLE t AS EXECUTE prepared; RETURN QUERY SELECT * FROM public.docs; END",
        "plpgsql",
        True,
        0,
    ),
    "a function that runs a text": (
        """SELECT d.* FROM public.docs AS d, pg_catalog.ts_stat('DELETE FROM public.docs RETURNING NULL')
        WHERE d.owner_id = word""",
        "sql",
        True,
        0,
    ),
    "a function that reads all tables of a schema": (
        "SELECT * FROM public.docs WHERE schema_to_xml('public', true, true, '') IS NOT NULL",
        "sql",
        True,
        0,
    ),
    "a block in a block": ("BEGIN DO 'BEGIN DELETE FROM public.docs; END'; END", "plpgsql", True, 0),
    "a body that the parser doesn't know": (
        "DECLARE d public.docs[]; BEGIN DELETE FROM public.docs; END",
        "plpgsql",
        True,
        0,
    ),
    "reading, in a body that the parser doesn't know": (
        """DECLARE d public.docs[]; -- DELETE
        BEGIN INSERT INTO pg_temp.x VALUES (1) ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT * FROM public.docs; END""",
        "plpgsql",
        False,
        0,
    ),
    "a computed command in a body that the parser doesn't know": (
        "DECLARE m public.members[]; BEGIN EXECUTE 'DELETE FROM public.do' || 'cs'; END",
        "plpgsql",
        False,
        1,
    ),
    "a word in a comment": (
        "BEGIN RETURN QUERY SELECT * FROM public.docs; END -- execute",
        "plpgsql",
        False,
        0,
    ),
}


@pytest.mark.exhaustive
def test_the_parser_finds_the_commands_of_a_body(examples: Examples, subtests: pytest.Subtests) -> None:
    for name, (body, language, is_found, undecided) in BODIES.items():
        definition = body if language == "atomic" else f"AS $body$ {body} $body$"
        sql = f"""
        CREATE ROLE janitor; GRANT SELECT, DELETE ON docs TO janitor; GRANT SELECT ON members TO janitor;
        CREATE POLICY own ON docs TO authenticated USING ({OWN});
        CREATE POLICY read ON docs FOR SELECT TO janitor USING ({OWN});
        CREATE POLICY remove ON docs FOR DELETE TO janitor USING (true);
        CREATE FUNCTION f() RETURNS SETOF docs LANGUAGE {language.replace("atomic", "sql")} SECURITY DEFINER
          SET search_path = '' {definition};
        ALTER FUNCTION f() OWNER TO janitor; REVOKE ALL ON FUNCTION f() FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION f() TO authenticated;
        """
        with subtests.test(name):
            found = examples.look(TABLE + sql, select=["definer-reads-protected"])
            assert shown(found)[: len(found.findings) - undecided] == (
                ["error definer-reads-protected public.f()"] if is_found else []
            )
            assert len(unknown(found)) == undecided


#: A view of the table docs, which has no row security, its privileges, and the level of the finding.
VIEWS = {
    "signed-in callers read": (
        "CREATE VIEW v AS SELECT * FROM docs; GRANT SELECT ON v TO authenticated",
        "info",
    ),
    "all callers read": ("CREATE VIEW v AS SELECT * FROM docs; GRANT SELECT ON v TO anonymous", "warning"),
    "callers write": ("CREATE VIEW v AS SELECT * FROM docs; GRANT UPDATE ON v TO authenticated", "warning"),
    "the view can't be written": (
        "CREATE VIEW v AS SELECT count(*) FROM docs; GRANT SELECT, UPDATE ON v TO authenticated",
        "info",
    ),
    "a view of a view": (
        """CREATE VIEW below AS SELECT * FROM docs; CREATE VIEW v AS SELECT * FROM below;
        GRANT SELECT ON v TO anonymous""",
        "warning",
    ),
    "with the rights of the caller": (
        "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM docs; GRANT SELECT ON v TO anonymous",
        None,
    ),
    "a filter by the caller": (
        "CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id(); GRANT SELECT ON v TO anonymous",
        None,
    ),
    "a filter by the caller in the view below": (
        """CREATE VIEW below AS SELECT * FROM docs WHERE owner_id = auth.user_id();
        CREATE VIEW v AS SELECT * FROM below; GRANT SELECT ON v TO anonymous""",
        None,
    ),
    "an owner who may not read": (
        "CREATE VIEW v AS SELECT * FROM docs; GRANT SELECT ON v TO anonymous; ALTER VIEW v OWNER TO stranger",
        None,
    ),
}


@pytest.mark.exhaustive
def test_a_view_reaches_a_table_without_row_security(examples: Examples, subtests: pytest.Subtests) -> None:
    table = """
    CREATE ROLE back; CREATE ROLE stranger; CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
    ALTER TABLE docs OWNER TO back;
    """
    for name, (sql, level) in VIEWS.items():
        with subtests.test(name):
            found = examples.look(f"{table} {sql};", select=["table-without-row-security"])

            assert shown(found) == (
                [] if level is None else [f"{level} table-without-row-security public.docs"]
            )
            if level is not None:
                (remedy,) = [one.remedy for one in found.findings]
                assert remedy is not None
                mended = examples.look(f"{table} {sql}; {remedy.sql}")
                assert [one for one in mended.findings if one.rule == "table-without-row-security"] == []


@pytest.mark.exhaustive
def test_a_reference_that_a_subquery_looks_up_reveals_no_row(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    """The subquery finds no hidden row: both keys are denied by the policy, and not by the foreign key."""
    notes = f"""
        CREATE TABLE notes (id int PRIMARY KEY, owner_id text NOT NULL, doc_id int REFERENCES docs);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        GRANT INSERT ON notes TO authenticated;
        {policy(OWN)}
        CREATE POLICY write ON notes FOR INSERT TO authenticated WITH CHECK ({OWN} AND {{condition}});
    """
    found = ["info foreign-key-reveals-rows public.notes"]
    for condition, expected in {
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id)": [],
        "doc_id IN (SELECT docs.id FROM docs)": [],
        "doc_id NOT IN (SELECT docs.id FROM docs)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id OR notes.doc_id > 0)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = docs.org_id)": found,
        "(doc_id IN (SELECT docs.id FROM docs) OR doc_id > 0)": found,
        # The subquery has a row, or the key itself, whichever documents there are.
        "EXISTS (SELECT max(docs.id) FROM docs WHERE docs.id = notes.doc_id)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id HAVING true)": found,
        "EXISTS (SELECT 1 FROM docs WHERE docs.id = notes.doc_id ORDER BY count(*))": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id UNION ALL SELECT)": found,
        "doc_id IN (SELECT notes.doc_id FROM docs)": found,
        "doc_id IN (SELECT generate_series(1, 9) FROM docs)": found,
        "doc_id IN (WITH docs AS (SELECT generate_series(1, 9) AS id) SELECT docs.id FROM docs)": found,
    }.items():
        with subtests.test(condition):
            sql = TABLE + notes.format(condition=condition)
            assert shown(examples.look(sql, select=["foreign-key-reveals-rows"])) == expected


@pytest.mark.exhaustive
def test_a_part_of_a_key_that_a_subquery_looks_up_reveals_the_others(examples: Examples) -> None:
    sql = f"""{TABLE}
        ALTER TABLE docs ADD UNIQUE (org_id, id);
        CREATE TABLE notes (
          id int PRIMARY KEY, owner_id text, org_id int, doc_id int,
          FOREIGN KEY (org_id, doc_id) REFERENCES docs (org_id, id)
        );
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        GRANT INSERT ON notes TO authenticated;
        {policy(OWN)}
        CREATE POLICY write ON notes FOR INSERT TO authenticated
          WITH CHECK ({OWN} AND org_id IN (SELECT docs.org_id FROM docs));
    """
    found = shown(examples.look(sql, select=["foreign-key-reveals-rows"]))
    assert found == ["info foreign-key-reveals-rows public.notes"]


#: The search_path of a trigger function with the rights of its owner, its trigger, more SQL, is it found?
TRIGGERS = {
    "no search_path": ("", "AFTER INSERT ON docs", "", True),
    "a safe search_path": ("SET search_path = ''", "AFTER INSERT ON docs", "", False),
    "a temporary table comes first": (
        "SET search_path = public",
        "AFTER INSERT ON docs",
        "GRANT TEMPORARY ON DATABASE app TO authenticated",
        True,
    ),
    "TRUNCATE": ("", "AFTER TRUNCATE ON docs", "GRANT TRUNCATE ON docs TO authenticated", True),
    "a command without a privilege": ("", "AFTER TRUNCATE ON docs", "", False),
    "a table that callers don't write": ("", "AFTER INSERT ON members", "", False),
    "one column": ("", "AFTER UPDATE ON members", "GRANT UPDATE (org_id) ON members TO authenticated", True),
    "disabled": ("", "AFTER INSERT ON docs", "ALTER TABLE docs DISABLE TRIGGER log", False),
    "a view": (
        "",
        "AFTER INSERT ON members",
        "CREATE VIEW v AS SELECT * FROM members; GRANT INSERT ON v TO authenticated",
        True,
    ),
    "a rule": (
        "",
        "AFTER INSERT ON members",
        "CREATE RULE r AS ON DELETE TO docs DO ALSO INSERT INTO members VALUES (1, 'bob')",
        True,
    ),
    "a cascade": (
        "",
        "AFTER DELETE ON members",
        "ALTER TABLE members ADD FOREIGN KEY (org_id) REFERENCES docs (id) ON DELETE CASCADE",
        True,
    ),
    "no cascade": (
        "",
        "AFTER DELETE ON members",
        "ALTER TABLE members ADD FOREIGN KEY (org_id) REFERENCES docs (id)",
        False,
    ),
    "a parent": (
        "",
        "AFTER DELETE ON members FOR EACH ROW",
        """CREATE TABLE people (org_id int, user_id text NOT NULL); ALTER TABLE members INHERIT people;
        GRANT DELETE ON people TO authenticated""",
        True,
    ),
    "a trigger that callers create": (
        "",
        "AFTER INSERT ON members",
        "GRANT EXECUTE ON FUNCTION log() TO authenticated; GRANT CREATE ON SCHEMA public TO authenticated",
        True,
    ),
}


@pytest.mark.exhaustive
def test_callers_run_trigger_functions_by_writing(examples: Examples, subtests: pytest.Subtests) -> None:
    for name, (path, trigger, more, is_found) in TRIGGERS.items():
        with subtests.test(name):
            found = examples.look(
                f"""{TABLE}{LOG.format(path=path)}
                CREATE TRIGGER log {trigger} EXECUTE FUNCTION log(); {more};""",
                select=["definer-search-path"],
            )
            expected = ["warning definer-search-path public.log()"] if is_found else []
            assert shown(found) == expected


@pytest.mark.exhaustive
def test_each_role_runs_the_function_of_an_event_trigger(examples: Examples) -> None:
    sql = """CREATE FUNCTION log() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';"""
    event = "CREATE EVENT TRIGGER log ON ddl_command_start EXECUTE FUNCTION log();"
    for more, expected in {
        event: ["warning definer-search-path public.log()"],
        "": [],
        f"{event} ALTER EVENT TRIGGER log DISABLE": [],
        f"{event} ALTER FUNCTION log() SET search_path = ''": [],
    }.items():
        assert shown(examples.look(sql + more, select=["definer-search-path"])) == expected


LOG = """
CREATE TABLE entries (who text);
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {path}
  AS 'BEGIN INSERT INTO entries VALUES (current_user); RETURN NULL; END';
REVOKE ALL ON FUNCTION log() FROM PUBLIC;
"""


def test_a_caller_shadows_the_tables_of_a_trigger_function(examples: Examples) -> None:
    made = f"""{TABLE}{LOG.format(path="")}
    CREATE TRIGGER log AFTER INSERT ON docs EXECUTE FUNCTION log();
    CREATE POLICY own ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
    GRANT TEMPORARY ON DATABASE app TO authenticated;
    """
    with undone(examples.connection):
        run(
            examples.connection,
            f"""{made}
            SET LOCAL ROLE authenticated;
            SELECT set_config('request.jwt.claims', '{{"sub": "bob"}}', true);
            CREATE TEMPORARY TABLE entries (who text);
            GRANT INSERT ON entries TO PUBLIC;
            INSERT INTO docs VALUES (1, 1, 'bob', false);
            """,
        )
        ran_as = examples.connection.scalar(text("SELECT who FROM pg_temp.entries"))
        assert ran_as == examples.connection.scalar(text("SELECT session_user"))
    (found,) = examples.look(made, select=["definer-search-path"]).findings

    assert found.object == "public.log()"
    assert found.evidence[0].text == (
        "anonymous, authenticated may INSERT into public.docs, whose trigger log calls it; "
        "its search_path is that of the caller"
    )


@pytest.mark.exhaustive
def test_the_exemption_of_a_migrating_role_is_that_of_the_finding(examples: Examples, tmp_path: Path) -> None:
    name = 'the "migrator"'
    quoted = name.replace('"', '""')
    sql = f"""{TABLE}{policy(OWN)} CREATE ROLE "{quoted}" LOGIN NOINHERIT BYPASSRLS IN ROLE authenticated;"""
    (found,) = examples.look(sql, select=["login-role"]).findings
    remedy, _, exemption = (found.remedy.text or "").partition(": ")
    head, _, keys = exemption.partition("]] ")
    settings = tmp_path / "pyproject.toml"
    settings.write_text(f"{head}]]\n" + keys.replace(", ", "\n"), encoding="utf-8")

    assert remedy == f"If only migrations log in as {name}, exempt it in pyproject.toml"
    (read,) = read_settings(settings).exemptions
    assert read.has(found)
