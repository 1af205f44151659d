"""Runs a snippet of the README, `snippet.py asgi|wsgi|django|print < snippet`; prints the statuses of 12 requests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import web


def django_app(settings_text: str, views_text: str) -> Any:
    import os

    import django
    from django.core.wsgi import get_wsgi_application

    Path("settings.py").write_text(
        settings_text + "ALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'urls'\nLOGGING_CONFIG = None\n"
    )
    Path("views.py").write_text(views_text)
    Path("urls.py").write_text(
        "from django.urls import path\nimport views\nurlpatterns = [path('reports', views.reports)]\n"
    )
    sys.path.insert(0, ".")
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    django.setup()
    return get_wsgi_application()


kind, text = sys.argv[1], sys.stdin.read()
if kind == "django":
    app = django_app(*text.split("# views.py"))
else:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(text, "snippet", "exec"), names)
    app = names.get("app")
if kind != "print":
    with (web.asgi if kind == "asgi" else web.wsgi)(app) as client:
        print([client.get("/reports").status_code for _ in range(12)])
