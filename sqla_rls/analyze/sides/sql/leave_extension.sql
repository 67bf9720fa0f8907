-- Takes the functions out of the extension pg_session_jwt, since policies depend on them, and drops it.  With the
-- comment, create_auth_functions.sql replaces them.

