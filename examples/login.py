"""A login form that allows five attempts in a quarter of an hour: login.py [port]

STRICT counts refused attempts too: whoever keeps trying stays out, and only waiting helps. Attempts are counted by
account and address together. By account alone, anyone could lock its owner out.
"""

import hashlib
import hmac
import math
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unicodedata import normalize
from urllib.parse import parse_qs

import redis

server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
FORM = '<form method="post"><input name="name"> <input name="password" type="password"> <button>Log in</button></form>'


def digest(password):
    return hashlib.scrypt(password.encode(), salt=b"one for each account", n=2**14, r=8, p=1)


ACCOUNTS = {"anna": digest("correct horse")}  # your users


def one_spelling(name):
    """anna, Anna and "anna " are one account and share five attempts."""
    return normalize("NFKC", normalize("NFKC", name).casefold()).strip()


class Login(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, FORM)

    def do_POST(self):
        fields = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace"))
        name, password = (fields.get(field, [""])[0] for field in ("name", "password"))
        name = one_spelling(name)[:100]  # it becomes part of a key
        key = f"login:{name}:{self.client_address[0]}"
        allowed, _, left, retry_after, *_ = server.execute_command("RATELIMIT.HIT", key, 5, "15m", "STRICT")
        if not allowed:
            return self.answer(429, "Too many attempts. Each further one makes you wait longer.", retry_after)
        if not hmac.compare_digest(digest(password), ACCOUNTS.get(name, b"")):
            return self.answer(401, f"Wrong name or password; {left} attempts left. {FORM}")
        server.execute_command("RATELIMIT.RESET", key)
        self.answer(200, "Welcome.")

    def answer(self, status, text, retry_after=None):
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        if retry_after is not None:
            self.send_header("Retry-After", math.ceil(retry_after / 1000))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    ThreadingHTTPServer(("127.0.0.1", port), Login).serve_forever()
