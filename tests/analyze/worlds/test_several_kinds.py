"""A function decides by a text of one row and the state of another: several kinds of rows together."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.verdict import Budget
from tests.support.suite import table
from tests.support.worlds import Sides, verdicts

#: Posts of topics of a group, as people of a project on Supabase write them.
FORUM = """
CREATE TABLE people (id uuid PRIMARY KEY);
CREATE TABLE groups (id uuid PRIMARY KEY, founder uuid NOT NULL REFERENCES people);
CREATE TABLE seats (group_id uuid REFERENCES groups, person uuid REFERENCES people, confirmed_on date,
                    grade text NOT NULL DEFAULT 'guest', PRIMARY KEY (group_id, person));
CREATE TABLE topics (id uuid PRIMARY KEY, group_id uuid NOT NULL REFERENCES groups, starter uuid NOT NULL
  REFERENCES people, audience text NOT NULL CHECK (audience IN ('nobody', 'group', 'world')));
CREATE TABLE posts (id int PRIMARY KEY, topic_id uuid NOT NULL REFERENCES topics, writer uuid NOT NULL
  REFERENCES people);
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
  RETURN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;
CREATE FUNCTION is_seated(g uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS
  'SELECT EXISTS (SELECT FROM seats WHERE group_id = g AND person = auth.uid() AND confirmed_on IS NOT NULL)';
CREATE FUNCTION can_read(t uuid) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS $$
DECLARE one topics%ROWTYPE;
BEGIN
  SELECT * INTO one FROM topics WHERE id = t;
  IF one.audience = 'world' OR one.starter = auth.uid() THEN RETURN true; END IF;
  RETURN one.audience = 'group' AND is_seated(one.group_id);
END $$;
ALTER TABLE topics ENABLE ROW LEVEL SECURITY;
ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
CREATE POLICY reads ON topics FOR SELECT TO other USING (can_read(id));
CREATE POLICY reads ON posts FOR SELECT TO other USING (can_read(topic_id));
CREATE POLICY writes ON posts FOR INSERT TO other WITH CHECK (writer = auth.uid() AND can_read(topic_id));
CREATE POLICY removes ON posts FOR DELETE TO other USING (writer = auth.uid());
GRANT SELECT, INSERT, DELETE ON topics, posts TO other;
"""
SEATED = """
CREATE OR REPLACE FUNCTION is_seated(g uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS 'SELECT EXISTS (SELECT FROM seats WHERE {})';
"""


@pytest.mark.exhaustive
@table(
    ("condition", "verdict"),
    [
        ("group_id = g AND person = auth.uid()", "opens"),
        ("group_id = g AND confirmed_on IS NOT NULL", "opens"),
        (
            "group_id = g AND person = auth.uid() AND confirmed_on IS NOT NULL AND grade <> ''guest''",
            "closes",
        ),
        ("person = auth.uid() AND g = group_id AND NOT confirmed_on IS NULL", None),
    ],
)
def test_a_function_of_several_rows_is_told_apart(sides: Sides, condition: str, verdict: str | None) -> None:
    with sides.compared(SEATED.format(condition), setup=FORUM, budget=Budget()) as (found, *_):
        assert not found.unknown
        expected = {("public.posts", "other", command) for command in ("SELECT", "INSERT", "DELETE")}
        expected |= {("public.topics", "other", "SELECT")}
        assert verdicts(found) == (dict.fromkeys(expected, verdict) if verdict else {})
