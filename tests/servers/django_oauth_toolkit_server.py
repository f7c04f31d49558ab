"""A real authorization server for the tests: PyPI `django-oauth-toolkit` with single-use refresh tokens, whose
reuse revokes the family, and whose rule is that a refresh kills the access token before it.

usage: python django_oauth_toolkit_server.py '{"access_token_ttl": 4, "client_id": "...", "client_secret": "..."}'

Prints one JSON line when ready and ends when its standard input ends. What was counted and issued can be read
at /_state.
"""

import hashlib
import json
import os
import socketserver
import sys
import tempfile
import threading
import urllib.parse
import uuid
from datetime import timedelta
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

options = json.loads(sys.argv[1])
scratch = tempfile.TemporaryDirectory(prefix="django-oauth-toolkit-")
access_token_ttl = options.get("access_token_ttl", 4)

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(scratch.name, "db.sqlite3"),
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
            },
        }
    },
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": access_token_ttl,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "SCOPES": {"read": "read"},
    },
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only-for-tests",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path, re_path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.generators import generate_client_secret
from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model
from oauth2_provider.views import TokenView

lock = threading.Lock()
state = {
    "token_posts": 0,
    "posts_by_refresh_token": {},
    "errors": [],
    "resource": {"ok": 0, "refused": 0},
    "issued": [],
}


def fingerprint(text):
    return hashlib.sha256(text.encode()).hexdigest()


@csrf_exempt
def token(request):
    spent = urllib.parse.parse_qs(request.body.decode()).get("refresh_token", [None])[0]
    response = TokenView.as_view()(request)
    answer = json.loads(response.content)
    with lock:
        state["token_posts"] += 1
        if spent:
            posts = state["posts_by_refresh_token"]
            posts[fingerprint(spent)] = posts.get(fingerprint(spent), 0) + 1
        if "error" in answer:
            state["errors"].append({"error": answer["error"], "client": options["client_id"]})
        else:
            state["issued"] += [answer["access_token"], answer["refresh_token"]]
    return response


@csrf_exempt
def resource(request):
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    found = get_access_token_model().objects.filter(token_checksum=fingerprint(value)).first() if value else None
    live = scheme == "Bearer" and found is not None and found.is_valid()
    with lock:
        state["resource"]["ok" if live else "refused"] += 1
    if not live:
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return JsonResponse({"error": "invalid_token"}, status=401, headers=challenge)
    return JsonResponse({"account": found.user.get_username(), "token": fingerprint(value)})


def show_state(_request):
    with lock:
        return JsonResponse(state)


urlpatterns = [path("o/token/", token), path("_state", show_state), re_path("^resource", resource)]


def first_pair():
    user = get_user_model().objects.create_user("legacy")
    application = get_application_model().objects.create(
        client_id=options["client_id"],
        client_secret=options["client_secret"],
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://client.example/callback",
        user=user,
    )
    access = get_access_token_model().objects.create(
        user=user,
        application=application,
        token=generate_client_secret(),
        expires=timezone.now() + timedelta(seconds=access_token_ttl),
        scope="read",
    )
    refresh = get_refresh_token_model().objects.create(
        user=user,
        application=application,
        token=generate_client_secret(),
        access_token=access,
        token_family=uuid.uuid4(),
    )
    state["issued"] += [access.token, refresh.token]
    return access.token, refresh.token


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


call_command("migrate", verbosity=0)
access, refresh = first_pair()
with make_server("127.0.0.1", options.get("port", 0), get_wsgi_application(), Server, Quiet) as server:
    origin = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = {"origin": origin, "token_endpoint": f"{origin}/o/token/", "access_token": access, "refresh_token": refresh}
    print(json.dumps(ready), flush=True)
    sys.stdin.read()
    server.shutdown()
