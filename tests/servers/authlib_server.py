"""A real authorization server for the tests: PyPI `authlib` on Flask with single-use refresh tokens, whose reuse
revokes the family; also client_credentials, password and jwt_bearer.

usage: python authlib_server.py '{"access_token_ttl": 2, "client_id": "...", "client_secret": "...",
                                  "username": "...", "password": "...", "public_key": "PEM"}'

Prints one JSON line when ready and ends when its standard input ends. What was counted and issued can be read
at /_state.
"""

import hashlib
import json
import logging
import os
import sys
import threading
import time
import uuid

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7523 import JWTBearerGrant
from flask import Flask, jsonify, request
from joserfc.jwk import ECKey
from werkzeug.serving import make_server

options = json.loads(sys.argv[1])
ttl = options.get("access_token_ttl", 2)
jwt_bearer = JWTBearerGrant.GRANT_TYPE
logging.getLogger("werkzeug").setLevel(logging.ERROR)

lock = threading.RLock()
state = {
    "token_posts": 0,
    "posts_by_refresh_token": {},
    "tokens_by_grant": {},
    "errors": [],
    "resource": {"ok": 0, "refused": 0},
    "issued": [],
}
access_tokens = {}
refresh_tokens = {}


def fingerprint(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Client(ClientMixin):
    client_id = options["client_id"]

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return "https://client.example/callback"

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri == self.get_default_redirect_uri()

    def check_client_secret(self, client_secret):
        return client_secret == options["client_secret"]

    def check_endpoint_auth_method(self, method, _endpoint):
        return method == "client_secret_basic"

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, _grant_type):
        return True


class Token(TokenMixin):
    def __init__(self, fields, family):
        self.fields = fields
        self.family = family
        self.dies = time.time() + fields["expires_in"]
        self.spent = False
        self.revoked = False

    def check_client(self, client):
        return client.client_id == options["client_id"]

    def get_scope(self):
        return self.fields.get("scope", "")

    def get_expires_in(self):
        return self.fields["expires_in"]

    def is_expired(self):
        return time.time() >= self.dies

    def is_revoked(self):
        return self.revoked

    def get_user(self):
        return options["username"]

    def get_client(self):
        return client


client = Client()


def save(fields, asked):
    with lock:
        before = getattr(asked, "refresh_token", None)
        token = Token(fields, before.family if before else uuid.uuid4())
        access_tokens[fields["access_token"]] = token
        if "refresh_token" in fields:
            refresh_tokens[fields["refresh_token"]] = token
        state["issued"] += [fields[name] for name in ("access_token", "refresh_token") if name in fields]


def revoke_family(family):
    for token in access_tokens.values():
        if token.family == family:
            token.revoked = True


class RefreshTokenGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token):
        with lock:
            token = refresh_tokens.get(refresh_token)
            if token is None or token.revoked:
                return None
            if token.spent:
                revoke_family(token.family)
                return None
            token.spent = True
            return token

    def authenticate_user(self, refresh_token):
        return refresh_token.get_user()

    def revoke_old_credential(self, refresh_token):
        pass


class ClientCredentialsGrant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]


class PasswordGrant(grants.ResourceOwnerPasswordCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

    def authenticate_user(self, username, password):
        good = (username, password) == (options["username"], options["password"])
        return username if good else None


class AssertionGrant(JWTBearerGrant):
    def resolve_issuer_client(self, issuer):
        return client if issuer == options["client_id"] else None

    def resolve_client_public_key(self, _client):
        return ECKey.import_key(options["public_key"])

    def authenticate_user(self, subject):
        return subject if subject == options["username"] else None

    def get_audiences(self):
        return [f"{origin}/token"]

    def has_granted_permission(self, _client, _user):
        return True


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {
    name: ttl for name in ("refresh_token", "client_credentials", "password", jwt_bearer)
}
server = AuthorizationServer(app, lambda client_id: client if client_id == client.client_id else None, save)
for grant in (RefreshTokenGrant, ClientCredentialsGrant, PasswordGrant, AssertionGrant):
    server.register_grant(grant)


@app.post("/token")
def token():
    spent, grant = request.form.get("refresh_token"), request.form.get("grant_type")
    response = server.create_token_response()
    answer = response.get_json(force=True)
    with lock:
        state["token_posts"] += 1
        if spent:
            posts = state["posts_by_refresh_token"]
            posts[fingerprint(spent)] = posts.get(fingerprint(spent), 0) + 1
        if "error" in answer:
            state["errors"].append(answer)
        else:
            state["tokens_by_grant"][grant] = state["tokens_by_grant"].get(grant, 0) + 1
    return response


@app.get("/_state")
def show_state():
    with lock:
        return jsonify(state)


@app.get("/<path:_path>")
def resource(_path):
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    with lock:
        found = access_tokens.get(value)
        live = scheme == "Bearer" and found is not None and not found.is_expired() and not found.revoked
        state["resource"]["ok" if live else "refused"] += 1
    if not live:
        return jsonify(error="invalid_token"), 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return jsonify(token=fingerprint(value))


def first_refresh_token():
    fields = {"access_token": uuid.uuid4().hex * 2, "refresh_token": uuid.uuid4().hex * 2, "expires_in": ttl}
    save(fields, None)
    return fields["refresh_token"]


http = make_server("127.0.0.1", options.get("port", 0), app, threaded=True)
origin = f"http://127.0.0.1:{http.server_port}"
threading.Thread(target=http.serve_forever, daemon=True).start()
ready = {"origin": origin, "token_endpoint": f"{origin}/token", "refresh_token": first_refresh_token()}
print(json.dumps(ready), flush=True)
sys.stdin.read()
http.shutdown()
