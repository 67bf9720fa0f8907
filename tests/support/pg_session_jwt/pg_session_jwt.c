/*
 * A stand-in for the extension pg_session_jwt 0.5.0, for tests where that isn't to be had.
 *
 * It really verifies Ed25519, and its settings really have their contexts.  test_conformance.py holds it and
 * the extension to the same contract, and docs/security/conformance.md lists how it differs.  Not for production.
 */
#include "postgres.h"

#include <ctype.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <time.h>

#include "common/base64.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;

#define FUNCTION(name) PG_FUNCTION_INFO_V1(name); Datum name(PG_FUNCTION_ARGS)
#define LEEWAY 60 /* seconds */
#define REFUSE(code, ...) ereport(ERROR, errcode(code), errmsg(__VA_ARGS__))
#define MALFORMED(...) REFUSE(ERRCODE_DATATYPE_MISMATCH, __VA_ARGS__)
#define UNTRUE(...) REFUSE(ERRCODE_CHECK_VIOLATION, __VA_ARGS__)

static char *jwk, *jwt, *request_claims, *audit_log;

/* What this backend accepted last.  A transaction that is rolled back doesn't take it back. */
static int64 last_jti = 0;
static char *last_token = NULL;
static Jsonb *last_claims = NULL;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	DefineCustomStringVariable("pg_session_jwt.jwk", "JSON Web Key (JWK) used for JWT validation", NULL,
							   &jwk, NULL, PGC_BACKEND, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_session_jwt.jwt", "JSON Web Token (JWT) used for query authorization", NULL,
							   &jwt, NULL, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("request.jwt.claims", "The claims, where there is no JWK", NULL,
							   &request_claims, NULL, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_session_jwt.audit_log", "on: log each validation", NULL,
							   &audit_log, NULL, PGC_SUSET, 0, NULL, NULL, NULL);
}

/* The bytes behind base64url without padding (RFC 7515, 2), in its one canonical spelling; else NULL. */
static unsigned char *
decoded(const char *text, int length, int *size)
{
	int			padded = (length + 3) / 4 * 4;
	char	   *plain = palloc(padded + 1);
	char	   *again = palloc(padded + 1);
	unsigned char *bytes = palloc(padded + 1);

	memset(plain, '=', padded);
	for (int i = 0; i < length; i++)
		plain[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : strchr("+/=", text[i]) ? '!' : text[i];
	*size = pg_b64_decode(plain, padded, (void *) bytes, padded);
	/* Neither whitespace nor bits to spare come back. */
	if (*size < 0 || pg_b64_encode((void *) bytes, *size, again, padded) != padded ||
		memcmp(plain, again, padded) != 0)
		return NULL;
	return bytes;
}

/* NULL if *text* isn't JSON. */
static Jsonb *
parsed(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile json = NULL;

	PG_TRY();
	{
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION ||
			geterrcode() == ERRCODE_UNTRANSLATABLE_CHARACTER)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return json;
}

static JsonbValue *
member(JsonbContainer *object, const char *name)
{
	if (!object || !JsonContainerIsObject(object))
		return NULL;
	return getKeyJsonValueFromContainer(object, name, strlen(name), NULL);
}

static bool
is_text(JsonbValue *value, const char *text)
{
	return value && value->type == jbvString && value->val.string.len == strlen(text) &&
		memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

static bool
is_integer(JsonbValue *value, int64 *integer)
{
	char	   *text, *end;

	if (!value || value->type != jbvNumeric)
		return false;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	errno = 0;
	*integer = strtoll(text, &end, 10);
	return errno == 0 && *end == '\0';
}

/* The 32 bytes of the key that tokens are signed with. */
static unsigned char *
public_key(void)
{
	Jsonb	   *key;
	JsonbValue *x;
	unsigned char *bytes = NULL;
	int			size = 0;

	if (!jwk)
		REFUSE(ERRCODE_NO_DATA, "Missing runtime parameter: pg_session_jwt.jwk");
	key = parsed(jwk);
	if (key && is_text(member(&key->root, "kty"), "OKP") && is_text(member(&key->root, "crv"), "Ed25519") &&
		(x = member(&key->root, "x")) && x->type == jbvString)
		bytes = decoded(x->val.string.val, x->val.string.len, &size);
	if (!bytes || size != 32)
		MALFORMED("pg_session_jwt.jwk requires an ES256 JWK");	/* sic */
	return bytes;
}

static bool
is_signed(const unsigned char *key_bytes, const unsigned char *signature, int size, const char *text, int length)
{
	EVP_PKEY   *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key_bytes, 32);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		good = key && context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
		EVP_DigestVerify(context, signature, size, (const unsigned char *) text, length) == 1;

	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return good;
}

static Jsonb *
payload_of(const char *part, int length)
{
	unsigned char *bytes;
	Jsonb	   *claims = NULL;
	int			size, last;

	/* One line ending does no harm, it is signed. */
	if (length > 0 && part[length - 1] == '\n')
		length--;
	if (length > 0 && part[length - 1] == '\r')
		length--;
	last = length % 4 ? length % 4 : Min(length, 4);
	if (last == 0 || !decoded(part + length - last, last, &size))
		MALFORMED("could not decode JWT component");
	bytes = decoded(part, length, &size);
	/* Not UTF-8 if it holds a NUL. */
	if (bytes && pg_verify_mbstr(PG_UTF8, (char *) bytes, size, true))
		claims = parsed(pg_any_to_server(pnstrdup((char *) bytes, size), size, PG_UTF8));
	if (!claims || !JB_ROOT_IS_OBJECT(claims))
		MALFORMED("could not parse JWT component");
	return claims;
}

/* The claim *name*, in seconds since the epoch; *otherwise* if it isn't there. */
static int64
seconds(Jsonb *claims, const char *name, const char *title, int64 otherwise)
{
	JsonbValue *value = member(&claims->root, name);

	if (value && !is_integer(value, &otherwise))
		MALFORMED("'%s' (%s) must be an integer representing seconds since unix epoch", name, title);
	return otherwise;
}

/* The claims of the token in force.  The text that was accepted last is accepted again. */
static Jsonb *
verified(void)
{
	unsigned char *key = public_key(), *signature;
	char	   *first = strchr(jwt, '.'), *second = strrchr(jwt, '.'), *token;
	int			size;
	int64		jti, nbf, exp, now = time(NULL);
	Jsonb	   *claims, *kept;
	MemoryContext context;

	if (last_token && strcmp(jwt, last_token) == 0)
		return DatumGetJsonbPCopy(JsonbPGetDatum(last_claims));

	if (first == second)
		MALFORMED("invalid JWT encoding");
	signature = decoded(second + 1, strlen(second + 1), &size);
	if (!signature || size > 64)
		MALFORMED("invalid JWT signature encoding");
	if (!is_signed(key, signature, size, jwt, second - jwt))
		UNTRUE("invalid JWT signature");

	claims = payload_of(first + 1, second - first - 1);
	if (!is_integer(member(&claims->root, "jti"), &jti))
		MALFORMED("JWT payload must contain a valid 'jti' (JWT ID)");
	if (jti <= last_jti)
		UNTRUE("Token ID must be strictly monotonically increasing.");
	nbf = seconds(claims, "nbf", "Not Before", now);
	if (nbf > now + LEEWAY)
		ereport(ERROR, errcode(ERRCODE_CHECK_VIOLATION), errmsg("Token used before it is ready"),
				errdetail("nbf=%lld", (long long) nbf));
	exp = seconds(claims, "exp", "Expiration", now);
	if (exp < now - LEEWAY)
		ereport(ERROR, errcode(ERRCODE_CHECK_VIOLATION), errmsg("Token used after it has expired"),
				errdetail("exp=%lld", (long long) exp));

	context = MemoryContextSwitchTo(TopMemoryContext);
	token = pstrdup(jwt);
	kept = DatumGetJsonbPCopy(JsonbPGetDatum(claims));
	MemoryContextSwitchTo(context);
	if (last_token)
		pfree(last_token), pfree(last_claims);
	last_token = token;
	last_claims = kept;
	last_jti = jti;
	return claims;
}

static char *
for_log(Jsonb *claims, const char *name)
{
	JsonbValue *value = member(&claims->root, name);
	Jsonb	   *json = value ? JsonbValueToJsonb(value) : NULL;

	return json ? JsonbToCString(NULL, &json->root, VARSIZE(json)) : "\"\"";
}

/* The caller's claims: with a JWK those of the token, else those of PostgREST's setting; NULL if there are none. */
static Jsonb *
current_claims(void)
{
	Jsonb	   *claims = NULL;

	if (jwk && jwt)
		claims = verified();
	else if (!jwk && request_claims)
		claims = parsed(request_claims);
	if (claims && audit_log && strcmp(audit_log, "on") == 0)
		ereport(LOG, errmsg(jwk ? "JWT issued for sub=%s and aud=%s was succesfully validated"
							: "JWT claims from GUC 'request.jwt.claims': sub=%s and aud=%s",
							for_log(claims, "sub"), for_log(claims, "aud")));
	return claims;
}

static JsonbValue *
organization_of(Jsonb *claims)
{
	JsonbValue *o = claims ? member(&claims->root, "o") : NULL;

	return o && o->type == jbvBinary && JsonContainerIsObject(o->val.binary.data) ? o : NULL;
}

static JsonbValue *
subject_of(Jsonb *claims)
{
	JsonbValue *sub = claims ? member(&claims->root, "sub") : NULL;

	if (sub && sub->type != jbvString && jwk)
		MALFORMED("invalid subject claim in the JWT");
	return sub && sub->type == jbvString ? sub : NULL;
}

/* With or without hyphens, in braces or as a URN; other spellings of Postgres' are none. */
static Datum
uuid_of(FunctionCallInfo fcinfo, JsonbValue *value)
{
	const char *text;
	char		hex[33];
	int			length, digits = 0;

	if (!value || value->type != jbvString)
		PG_RETURN_NULL();
	text = value->val.string.val;
	length = value->val.string.len;
	if (length == 38 && text[0] == '{' && text[37] == '}')
		text++, length = 36;
	else if (length == 45 && strncmp(text, "urn:uuid:", 9) == 0)
		text += 9, length = 36;
	if (length != 32 && length != 36)
		PG_RETURN_NULL();
	for (int i = 0; i < length; i++)
	{
		bool		hyphen = length == 36 && (i == 8 || i == 13 || i == 18 || i == 23);

		if (hyphen ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			PG_RETURN_NULL();
		if (!hyphen)
			hex[digits++] = text[i];
	}
	hex[32] = '\0';
	return DirectFunctionCall1(uuid_in, CStringGetDatum(hex));
}

FUNCTION(init)
{
	public_key();
	PG_RETURN_VOID();
}

FUNCTION(jwt_session_init)
{
	public_key();
	SetConfigOption("pg_session_jwt.jwt", text_to_cstring(PG_GETARG_TEXT_PP(0)), PGC_USERSET, PGC_S_SESSION);
	current_claims();
	PG_RETURN_VOID();
}

FUNCTION(session)
{
	Jsonb	   *claims = current_claims();

	PG_RETURN_JSONB_P(claims ? claims : parsed("null"));
}

FUNCTION(user_id)
{
	JsonbValue *sub = subject_of(current_claims());

	if (!sub)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(sub->val.string.val, sub->val.string.len));
}

FUNCTION(uid)
{
	return uuid_of(fcinfo, subject_of(current_claims()));
}

FUNCTION(organization)
{
	JsonbValue *o = organization_of(current_claims());

	if (!o)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(JsonbValueToJsonb(o));
}

FUNCTION(organization_id)
{
	JsonbValue *o = organization_of(current_claims());

	return uuid_of(fcinfo, o ? member(o->val.binary.data, "id") : NULL);
}
