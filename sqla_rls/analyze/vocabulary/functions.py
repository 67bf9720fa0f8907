"""The functions of which a reader knows what their results and arguments mean."""

from __future__ import annotations

from typing import Final

#: The functions of schema auth by the path of the claim that they return.
AUTH: Final[dict[str, tuple[str, ...]]] = {
    "session": (),
    "jwt": (),
    "user_id": ("sub",),
    "uid": ("sub",),
    "organization": ("o",),
    "organization_id": ("o", "id"),
    "role": ("role",),
    "email": ("email",),
}
#: Their result is one of their arguments, or as good as one.
TRANSPARENT: Final = frozenset(
    {
        *(
            "lower",
            "upper",
            "trim",
            "btrim",
            "ltrim",
            "rtrim",
            "left",
            "right",
            "concat",
            "replace",
            "split_part",
            "substr",
            "substring",
        ),
        *("length", "char_length", "abs", "date_trunc", "date_part", "extract", "timezone", "age", "now"),
        *(
            "to_json",
            "to_jsonb",
            "to_timestamp",
            "string_to_array",
            "array_to_string",
            "unnest",
            "cardinality",
        ),
        *("array_append", "array_remove", "array_length", "array_position", "array_agg", "jsonb_agg"),
        *("jsonb_array_elements", "jsonb_array_elements_text", "json_array_elements"),
        *("json_array_elements_text", "regexp_replace", "count", "min", "max", "sum", "bool_and", "bool_or"),
        *("every", "greatest", "least"),
    }
)
#: They compare their arguments.
COMPARING: Final = frozenset(
    {
        *("starts_with", "jsonb_exists", "jsonb_exists_any", "jsonb_exists_all", "jsonb_contains"),
        *("arraycontains", "texteq", "jsonb_path_exists"),
    }
)
#: They return a part of their first argument.
PATHS: Final = frozenset(
    f"{kind}_extract_path{suffix}" for kind in ("json", "jsonb") for suffix in ("", "_text")
)
#: The first letters of functions that run a text, or that read tables by their names.
RUN_TEXT: Final = (
    "query_to_xml",
    "cursor_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "ts_stat",
    "ts_rewrite",
    "dblink",
    "crosstab",
    "connectby",
    "xpath_table",
)
