"""Views and functions with the rights of their owners: which rows they show, and which commands they run."""

from __future__ import annotations

import pytest

from tests.analyze.lint.examples import OWN, TABLE, Examples, shown, unknown


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


#: The body of a SECURITY DEFINER function, and whether it is found.
ASKING = {
    "a column with the name of a function that returns the caller": (
        "SELECT m.user_id FROM public.members AS m WHERE m.org_id = 1",
        True,
    ),
    "a call of that function": (
        "SELECT m.user_id FROM public.members AS m WHERE m.user_id = auth.user_id()",
        False,
    ),
    "a call of a function that asks": (
        "SELECT m.user_id FROM public.members AS m WHERE m.user_id = public.subject()",
        False,
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("language", ["sql", "plpgsql"])
def test_a_column_named_as_a_function_of_the_caller_asks_for_no_caller(
    examples: Examples, subtests: pytest.Subtests, language: str
) -> None:
    for name, (query, is_found) in ASKING.items():
        body = query if language == "sql" else f"BEGIN RETURN QUERY {query}; END"
        sql = f"""
        CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        GRANT SELECT ON members TO authenticated;
        CREATE FUNCTION subject() RETURNS text LANGUAGE sql STABLE SET search_path = ''
          AS 'SELECT auth.user_id()';
        CREATE FUNCTION f() RETURNS SETOF text LANGUAGE {language} STABLE SECURITY DEFINER
          SET search_path = '' AS $f$ {body} $f$;
        """
        with subtests.test(name):
            found = examples.look(sql, select=["definer-reads-protected"])
            assert shown(found) == (["error definer-reads-protected public.f()"] if is_found else [])


#: The privileges on the table of administrators, and whether its callers make themselves one.
OWN_PROFILE = {
    "on each column": ("GRANT INSERT ON profiles TO authenticated", True),
    "on all columns but the one that decides": (
        "GRANT INSERT (id, name) ON profiles TO authenticated",
        False,
    ),
    "on all columns but the one that decides, whose default opens": (
        """GRANT INSERT (id, name) ON profiles TO authenticated;
        ALTER TABLE profiles ALTER is_admin SET DEFAULT true""",
        True,
    ),
}


@pytest.mark.exhaustive
def test_a_column_without_the_privilege_of_insert_gets_its_default(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    for name, (grants, is_found) in OWN_PROFILE.items():
        sql = f"""{TABLE}
        CREATE TABLE profiles (id text PRIMARY KEY, is_admin boolean NOT NULL DEFAULT false, name text);
        ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON profiles TO authenticated
          USING (id = (SELECT auth.user_id())) WITH CHECK (id = (SELECT auth.user_id()));
        GRANT SELECT ON profiles TO authenticated; {grants};
        CREATE POLICY admins ON docs FOR SELECT TO authenticated USING (
          (SELECT p.is_admin FROM profiles AS p WHERE p.id = (SELECT auth.user_id())));
        """
        with subtests.test(name):
            found = examples.look(sql, select=["self-granted"])
            assert shown(found) == (["warning self-granted public.profiles"] if is_found else [])


#: The command on rows that all callers read, its condition beside a profile, and what the caller then does.
OPENED_WRITES = {
    "inserting": ("INSERT WITH CHECK ({})", "p.is_admin", "inserts"),
    "changing": ("UPDATE USING ({})", "p.is_admin", "changes"),
    "deleting": ("DELETE USING ({})", "p.is_admin", "deletes"),
    "inserting with any profile": ("INSERT WITH CHECK ({})", "true", None),
    "deleting own rows": ("DELETE USING (owner_id = (SELECT auth.user_id()) AND {})", "p.is_admin", None),
}


@pytest.mark.exhaustive
def test_a_row_that_opens_only_writes_is_found(examples: Examples, subtests: pytest.Subtests) -> None:
    for name, (command, test, verb) in OPENED_WRITES.items():
        has_profile = f"EXISTS (SELECT FROM profiles AS p WHERE p.id = (SELECT auth.user_id()) AND {test})"
        sql = f"""{TABLE}
        CREATE TABLE profiles (id text PRIMARY KEY, is_admin boolean NOT NULL DEFAULT false);
        ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON profiles TO authenticated USING ((SELECT auth.user_id() = profiles.id));
        GRANT SELECT, INSERT, UPDATE ON profiles TO authenticated;
        CREATE POLICY reading ON docs FOR SELECT TO authenticated USING (true);
        CREATE POLICY admins ON docs FOR {command.format(has_profile).replace(" ", " TO authenticated ", 1)};
        """
        with subtests.test(name):
            found = examples.look(sql, select=["self-granted"])
            assert shown(found) == (["warning self-granted public.profiles"] if verb else [])
            texts = [one.evidence[0].text for one in found.findings]
            assert all(f"and then {verb} public.docs(" in one for one in texts)


@pytest.mark.exhaustive
def test_a_condition_in_values_pins_no_column(examples: Examples) -> None:
    sql = f"""{TABLE}
    CREATE TABLE profiles (id text PRIMARY KEY, is_admin boolean NOT NULL DEFAULT false);
    ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON profiles TO authenticated USING ((VALUES (profiles.id = (SELECT auth.user_id()))));
    GRANT SELECT, INSERT, UPDATE ON profiles TO authenticated;
    CREATE POLICY admins ON docs FOR SELECT TO authenticated USING (
      (SELECT p.is_admin FROM profiles AS p WHERE p.id = (SELECT auth.user_id())));
    """
    assert shown(examples.look(sql, select=["self-granted"])) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("member", ["app", "authenticated"])
@pytest.mark.parametrize("role", ["pg_execute_server_program", "pg_read_server_files", "pg_read_all_data"])
def test_a_predefined_role_is_a_way_around_policies(examples: Examples, role: str, member: str) -> None:
    sql = f"""{TABLE} CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated; GRANT {role} TO {member};
    CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({OWN});"""

    found = examples.look(sql, select=["login-role"])

    assert shown(found) == ["error login-role app"]
    assert f"it can become {role}, which can " in found.findings[0].text
