"""How an upstream verifies `x-zt-assertion`: the published keys, the type, the issuer, its own audience, the time.

    python3 -m pip install 'pyjwt[crypto]'
    python3 verify_assertion.py http://countersign:9193/.well-known/jwks.json shop.example "$ASSERTION"

Prints the claims, or says why there are none and exits with 1. In a service, keep one `PyJWKClient` for the life of the
process (it caches the keys) and call `verify` for each request.
"""

import json
import sys

import jwt

TYPE = "countersign-assertion+jwt"


def verify(assertion: str, keys: jwt.PyJWKClient, audience: str, issuer: str = "countersign") -> dict:
    # The type tells an assertion from any other token; without this line, some other token of the same issuer would do.
    if jwt.get_unverified_header(assertion).get("typ") != TYPE:
        raise jwt.InvalidTokenError(f"its type is not {TYPE}")
    key = keys.get_signing_key_from_jwt(assertion)
    return jwt.decode(
        assertion,
        key,  # brings its algorithm along: the token does not choose one
        algorithms=["EdDSA", "ES256"],
        audience=audience,
        issuer=issuer,
        leeway=5,
        options={"require": ["exp", "iat", "aud", "iss", "sub"]},
    )


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 64
    url, audience, assertion = sys.argv[1:]
    try:
        claims = verify(assertion, jwt.PyJWKClient(url), audience)
    except jwt.PyJWTError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(json.dumps(claims, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
