"""Objects and conventions without faults: no rule has a finding above info."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    AS_BOB,
    DENIED,
    IDS,
    NOTHING,
    OWN,
    UNCLAIMED,
    Caller,
    Clean,
    Works,
)

_ALICE_ID: Final = "00000000-0000-0000-0000-00000000000a"
_BOB_ID: Final = "00000000-0000-0000-0000-00000000000b"
_AS_ALICE_ID: Final = Caller(claims={"sub": _ALICE_ID})

_PARTITIONS: Final = Clean(
    name="Partitions that callers reach through their parent only",
    schema=f"""
CREATE TABLE events (
  id bigint GENERATED ALWAYS AS IDENTITY, owner text NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX events_owner ON events (owner);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events_2025 ENABLE ROW LEVEL SECURITY;
ALTER TABLE events_2026 ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON events TO authenticated;
CREATE POLICY own ON events FOR SELECT TO authenticated USING ({OWN});
CREATE POLICY add ON events FOR INSERT TO authenticated WITH CHECK ({OWN});
""",
    rows="INSERT INTO events (owner, at) VALUES ('alice', '2025-05-05'), ('bob', '2026-05-05');",
    works=(
        Works(statement="SELECT owner FROM events", outcome=["alice"]),
        Works(statement="SELECT owner FROM events_2025", outcome=DENIED),
        Works(
            statement="INSERT INTO events (owner, at) VALUES ('alice', '2026-01-01') RETURNING owner",
            outcome=["alice"],
        ),
    ),
)

_VIEWS: Final = Clean(
    name="Views with security_invoker, and a statistic that shows no rows",
    schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text, words int NOT NULL DEFAULT 0);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({OWN});
CREATE VIEW titles WITH (security_invoker = true) AS SELECT id, left(body, 20) AS title FROM docs;
CREATE VIEW long_titles WITH (security_invoker = true) AS SELECT id, title FROM titles
  WHERE length(title) > 5;
GRANT SELECT ON titles, long_titles TO authenticated;
CREATE MATERIALIZED VIEW words_per_owner AS SELECT owner, sum(words) FROM docs GROUP BY owner;
""",
    rows="INSERT INTO docs VALUES (1, 'alice', 'a long title'), (2, 'bob', 'another title');",
    works=(
        Works(statement="SELECT id FROM long_titles", outcome=[1]),
        Works(statement="SELECT owner FROM words_per_owner", outcome=DENIED),
    ),
)

_HELPERS: Final = Clean(
    name="Functions that run as their owner and ask who calls",
    schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner);
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON docs TO authenticated;
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT EXISTS (SELECT FROM public.admins AS a WHERE a.user_id = (SELECT auth.user_id()))';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
  AS $$ BEGIN NEW.body := trim(NEW.body); RETURN NEW; END $$;
REVOKE EXECUTE ON FUNCTION is_admin(), touch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_admin() TO authenticated;
CREATE TRIGGER touch BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION touch();
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({OWN} OR (SELECT is_admin()));
CREATE POLICY edit ON docs FOR UPDATE TO authenticated
  USING ({OWN} OR (SELECT is_admin())) WITH CHECK ({OWN} OR (SELECT is_admin()));
CREATE POLICY nobody ON admins USING (false);
""",
    rows="INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b'); INSERT INTO admins VALUES ('bob');",
    works=(
        Works(statement=IDS, outcome=[1]),
        Works(statement=IDS, outcome=[1, 2], caller=AS_BOB),
        Works(statement="UPDATE docs SET body = ' x ' RETURNING body", outcome=["x"]),
        Works(statement="SELECT user_id FROM admins", outcome=DENIED, caller=AS_BOB),
    ),
)

_TRIGGERS: Final = Clean(
    name="Triggers that run as their owner: an audit, a counter and a first membership",
    schema=f"""
CREATE TABLE teams (id int PRIMARY KEY, owner text NOT NULL, size int NOT NULL DEFAULT 0);
CREATE INDEX teams_owner ON teams (owner);
CREATE TABLE members (user_id text, team_id int REFERENCES teams, PRIMARY KEY (user_id, team_id));
CREATE INDEX members_team_id ON members (team_id);
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text, what text);
ALTER TABLE teams ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON teams TO authenticated;
GRANT SELECT ON members TO authenticated;
CREATE POLICY own ON teams TO authenticated USING ({OWN}) WITH CHECK ({OWN});
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
CREATE POLICY nobody ON audit USING (false);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  AS $$ BEGIN
    INSERT INTO public.audit (who, what) VALUES (auth.user_id(), to_jsonb(NEW)::text);
    INSERT INTO public.members VALUES (NEW.owner, NEW.id);
    UPDATE public.teams AS t SET size = (SELECT count(*) FROM public.members AS m WHERE m.team_id = t.id)
     WHERE t.id = NEW.id;
    RETURN NULL;
  END $$;
REVOKE EXECUTE ON FUNCTION note() FROM PUBLIC;
CREATE TRIGGER note AFTER INSERT ON teams FOR EACH ROW EXECUTE FUNCTION note();
""",
    rows="INSERT INTO teams VALUES (1, 'bob');",
    works=(
        Works(
            statement="SELECT size FROM teams",
            outcome=[1],
            first=("INSERT INTO teams VALUES (2, 'alice')",),
        ),
        Works(statement="SELECT user_id FROM members", outcome=NOTHING),
        Works(statement="SELECT what FROM audit", outcome=DENIED),
    ),
)

_OWNERS: Final = Clean(
    name="Views and functions of a role whose policies admit no more than those of the callers",
    schema=f"""
CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, org_id int NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner);
CREATE INDEX docs_org_id ON docs (org_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
RESET ROLE; CREATE ROLE reporting; GRANT reporting TO app_login;
GRANT USAGE, CREATE ON SCHEMA public TO reporting;
GRANT USAGE ON SCHEMA auth TO reporting; SET ROLE app_owner;
GRANT SELECT ON docs, members TO authenticated, reporting;
CREATE POLICY mine ON members FOR SELECT TO authenticated, reporting
  USING (user_id = (SELECT auth.user_id()));
CREATE POLICY team ON docs FOR SELECT TO authenticated USING (
  {OWN} OR org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
CREATE POLICY own ON docs FOR SELECT TO reporting USING ({OWN} AND id > 0);
RESET ROLE; SET ROLE reporting;
CREATE VIEW own_docs AS SELECT id, body FROM docs;
GRANT SELECT ON own_docs TO authenticated;
CREATE FUNCTION count_docs() RETURNS SETOF bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT count(*) FROM public.docs';
REVOKE EXECUTE ON FUNCTION count_docs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_docs() TO authenticated;
RESET ROLE; REVOKE CREATE ON SCHEMA public FROM reporting;
""",
    rows="INSERT INTO docs VALUES (1, 'alice', 10, 'a'), (2, 'bob', 10, 'b');"
    "INSERT INTO members VALUES ('alice', 10);",
    works=(
        Works(statement=IDS, outcome=[1, 2]),
        Works(statement="SELECT id FROM own_docs", outcome=[1]),
        Works(statement="SELECT count_docs()", outcome=[1]),
        Works(statement="SELECT count_docs()", outcome=[0], caller=UNCLAIMED),
    ),
)

_UUIDS: Final = Clean(
    name="Subjects and keys are uuids",
    schema="""
CREATE TABLE profiles (id uuid PRIMARY KEY DEFAULT auth.uid(), name text NOT NULL);
CREATE TABLE photos (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  profile_id uuid NOT NULL DEFAULT auth.uid() REFERENCES profiles ON DELETE CASCADE,
  path text NOT NULL
);
CREATE INDEX photos_profile_id ON photos (profile_id);
ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE photos ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON profiles TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON photos TO authenticated;
CREATE POLICY read ON profiles FOR SELECT TO authenticated USING (id = (SELECT auth.uid()));
CREATE POLICY add ON profiles FOR INSERT TO authenticated WITH CHECK (id = (SELECT auth.uid()));
CREATE POLICY edit ON profiles FOR UPDATE TO authenticated
  USING (id = (SELECT auth.uid())) WITH CHECK (id = (SELECT auth.uid()));
CREATE POLICY own ON photos TO authenticated
  USING (profile_id = (SELECT auth.uid())) WITH CHECK (profile_id = (SELECT auth.uid()));
""",
    rows=f"INSERT INTO profiles VALUES ('{_ALICE_ID}', 'Alice'), ('{_BOB_ID}', 'Bob');",
    works=(
        Works(statement="SELECT name FROM profiles", outcome=["Alice"], caller=_AS_ALICE_ID),
        Works(
            statement="INSERT INTO photos (path) VALUES ('x') RETURNING path",
            outcome=["x"],
            caller=_AS_ALICE_ID,
        ),
        Works(statement="SELECT name FROM profiles", outcome=NOTHING),
    ),
)

_SUPABASE: Final = Clean(
    name="As Supabase's projects are: all privileges for anon and authenticated, and auth.uid()",
    has_auth=False,
    schema="""
RESET ROLE;
CREATE ROLE anon; CREATE ROLE service_role BYPASSRLS; CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT anon, authenticated TO authenticator;
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth, public TO anon, authenticated, service_role;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
  AS $$ SELECT coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid $$;
CREATE TABLE public.profiles (id uuid PRIMARY KEY, username text NOT NULL);
CREATE TABLE public.messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  profile_id uuid NOT NULL DEFAULT auth.uid() REFERENCES public.profiles,
  body text NOT NULL
);
CREATE INDEX ON public.messages (profile_id);
ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.profiles, public.messages TO anon, authenticated, service_role;
CREATE POLICY "Users read their profile" ON public.profiles FOR SELECT TO authenticated
  USING (id = (SELECT auth.uid()));
CREATE POLICY "Users create their profile" ON public.profiles FOR INSERT TO authenticated
  WITH CHECK (id = (SELECT auth.uid()));
CREATE POLICY "Users update their profile" ON public.profiles FOR UPDATE TO authenticated
  USING (id = (SELECT auth.uid())) WITH CHECK (id = (SELECT auth.uid()));
CREATE POLICY "Users read their messages" ON public.messages FOR SELECT TO authenticated
  USING (profile_id = (SELECT auth.uid()));
CREATE POLICY "Users send messages" ON public.messages FOR INSERT TO authenticated
  WITH CHECK (profile_id = (SELECT auth.uid()));
""",
    rows=f"INSERT INTO profiles VALUES ('{_ALICE_ID}', 'alice'), ('{_BOB_ID}', 'bob');",
    works=(
        Works(statement="SELECT username FROM profiles", outcome=["alice"], caller=_AS_ALICE_ID),
        Works(
            statement="INSERT INTO messages (body) VALUES ('x') RETURNING body",
            outcome=["x"],
            caller=_AS_ALICE_ID,
        ),
        Works(
            statement="SELECT username FROM profiles", outcome=NOTHING, caller=Caller(role="anon", claims={})
        ),
    ),
)

_DRIZZLE: Final = Clean(
    name="As drizzle names policies, with USING (false) for the commands of nobody",
    schema="""
CREATE TABLE notes (id serial PRIMARY KEY, owner_id text NOT NULL DEFAULT auth.user_id(), title text);
CREATE INDEX notes_owner_id ON notes (owner_id);
CREATE TABLE plans (id int PRIMARY KEY, name text NOT NULL);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE plans ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated;
GRANT USAGE ON SEQUENCE notes_id_seq TO authenticated;
GRANT SELECT ON plans TO authenticated;
CREATE POLICY "crud-authenticated-policy-select" ON notes AS PERMISSIVE FOR SELECT TO authenticated
  USING ((SELECT auth.user_id()) = owner_id);
CREATE POLICY "crud-authenticated-policy-insert" ON notes AS PERMISSIVE FOR INSERT TO authenticated
  WITH CHECK ((SELECT auth.user_id()) = owner_id);
CREATE POLICY "crud-authenticated-policy-update" ON notes AS PERMISSIVE FOR UPDATE TO authenticated
  USING ((SELECT auth.user_id()) = owner_id) WITH CHECK ((SELECT auth.user_id()) = owner_id);
CREATE POLICY "crud-authenticated-policy-delete" ON notes AS PERMISSIVE FOR DELETE TO authenticated
  USING ((SELECT auth.user_id()) = owner_id);
CREATE POLICY "crud-authenticated-policy-select" ON plans AS PERMISSIVE FOR SELECT TO authenticated
  USING (true);
CREATE POLICY "crud-authenticated-policy-insert" ON plans AS PERMISSIVE FOR INSERT TO authenticated
  WITH CHECK (false);
CREATE POLICY "crud-authenticated-policy-update" ON plans AS PERMISSIVE FOR UPDATE TO authenticated
  USING (false) WITH CHECK (false);
CREATE POLICY "crud-authenticated-policy-delete" ON plans AS PERMISSIVE FOR DELETE TO authenticated
  USING (false);
""",
    rows="INSERT INTO plans VALUES (1, 'free'), (2, 'paid');",
    works=(
        Works(statement="SELECT id FROM plans ORDER BY id", outcome=[1, 2]),
        Works(statement="INSERT INTO notes (title) VALUES ('a') RETURNING owner_id", outcome=["alice"]),
        Works(statement="INSERT INTO plans VALUES (3, 'x')", outcome=DENIED),
    ),
)

_BY_HAND: Final = Clean(
    name="By hand, without a schema auth: one login role and a setting",
    has_auth=False,
    schema="""
RESET ROLE; CREATE ROLE web LOGIN; SET LOCAL ROLE app_owner;
CREATE TABLE accounts (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE invoices (
  id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, account_id int NOT NULL REFERENCES accounts, cents int
);
CREATE INDEX invoices_account_id ON invoices (account_id);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoices FORCE ROW LEVEL SECURITY;
GRANT SELECT ON accounts TO web;
GRANT SELECT, INSERT, UPDATE, DELETE ON invoices TO web;
CREATE POLICY account ON accounts FOR SELECT TO web
  USING (id = (SELECT nullif(current_setting('app.account_id', true), '')::int));
CREATE POLICY account ON invoices TO web
  USING (account_id = (SELECT nullif(current_setting('app.account_id', true), '')::int))
  WITH CHECK (account_id = (SELECT nullif(current_setting('app.account_id', true), '')::int));
""",
    rows="INSERT INTO accounts VALUES (1, 'a'), (2, 'b'); INSERT INTO invoices VALUES (1, 1, 5), (2, 2, 7);",
    works=(
        Works(
            statement="SELECT id FROM invoices",
            outcome=[2],
            caller=Caller(role=None, login="web", settings={"app.account_id": "2"}),
        ),
        Works(
            statement="SELECT id FROM invoices",
            outcome=NOTHING,
            caller=Caller(role=None, login="web", settings={"app.account_id": ""}),
        ),
    ),
)

_QUOTED: Final = Clean(
    name="Quoted names, and names of 63 bytes",
    schema=f"""
RESET ROLE; CREATE SCHEMA "Weird Schema" AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;
GRANT USAGE ON SCHEMA "Weird Schema" TO authenticated;
CREATE TABLE "Weird Schema"."{"d" * 63}" ("Id" int PRIMARY KEY, "the ""owner""\" text NOT NULL);
CREATE INDEX ON "Weird Schema"."{"d" * 63}" ("the ""owner""\");
ALTER TABLE "Weird Schema"."{"d" * 63}" ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON "Weird Schema"."{"d" * 63}" TO authenticated;
CREATE POLICY "own rows; --" ON "Weird Schema"."{"d" * 63}" TO authenticated
  USING ("the ""owner""\" = (SELECT auth.user_id())) WITH CHECK ("the ""owner""\" = (SELECT auth.user_id()));
""",
    rows=f"""INSERT INTO "Weird Schema"."{"d" * 63}" VALUES (1, 'alice'), (2, 'bob');""",
    works=(
        Works(statement=f"""SELECT "Id" FROM "Weird Schema"."{"d" * 63}" """, outcome=[1]),
        Works(statement=f"""DELETE FROM "Weird Schema"."{"d" * 63}" """, outcome=0, caller=UNCLAIMED),
    ),
)

CLEAN: Final = [
    _PARTITIONS,
    _VIEWS,
    _HELPERS,
    _TRIGGERS,
    _OWNERS,
    _UUIDS,
    _SUPABASE,
    _DRIZZLE,
    _BY_HAND,
    _QUOTED,
]
