"""A second OIDC provider for tests, by other people than the first: Canaille, with its data in memory.

Prints one line of JSON when it listens: {"issuer": "http://127.0.0.1:PORT"}. Ends when its standard input closes.
GPRXY_TEST_CALLBACK is where gprxy waits, which this provider compares to the letter; GPRXY_TEST_PASSWORD is everybody's.

What is different from node-oidc-provider: the audience is an array, people have `groups` and no roles, the consent
page is another application's, there is no device flow, and only clients with a secret may revoke.
"""

import json
import os
import sys
import threading

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from canaille.oidc.jose import make_default_rsa_jwk
from werkzeug.serving import make_server

PASSWORD = os.environ["GPRXY_TEST_PASSWORD"]
PEOPLE = {"alice": ("Alice Example", ["reader"]), "bob": ("Bob Example", ["writer", "staff"])}


def populate():
    """People, their groups, and gprxy as a public client for the audience of the proxy."""
    people = {}
    for name, (full, _) in PEOPLE.items():
        person = models.User(
            user_name=name, formatted_name=full, family_name="Example", emails=[f"{name}@corp.example"], password=PASSWORD
        )
        Backend.instance.save(person)
        people[name] = person
    for group in sorted({group for _, groups in PEOPLE.values() for group in groups}):
        members = [people[name] for name, (_, groups) in PEOPLE.items() if group in groups]
        Backend.instance.save(models.Group(display_name=group, members=members))
    database = models.Client(client_id="gprxy-test", client_name="Databases", redirect_uris=[])
    Backend.instance.save(database)
    client = models.Client(
        client_id="gprxy-cli",
        client_name="gprxy",
        application_type="native",
        redirect_uris=[os.environ["GPRXY_TEST_CALLBACK"]],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=["openid", "profile", "email", "groups"],
        token_endpoint_auth_method="none",
    )
    Backend.instance.save(client)
    client.audience = [client, database]
    Backend.instance.save(client)


def main():
    """Serves until standard input closes."""
    server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True)
    issuer = f"http://127.0.0.1:{server.port}"
    server.app = create_app(
        {
            "SECRET_KEY": "for-tests-only",
            "SERVER_NAME": f"127.0.0.1:{server.port}",
            "PREFERRED_URL_SCHEME": "http",
            "SESSION_COOKIE_SECURE": False,
            "CANAILLE": {"DATABASE": "memory", "EMAIL_CONFIRMATION": False, "JAVASCRIPT": False},
            "CANAILLE_OIDC": {
                "ACTIVE_JWKS": [make_default_rsa_jwk().as_dict(private=True)],
            },
        }
    )
    with server.app.app_context():
        populate()
    print(json.dumps({"issuer": issuer}), flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
