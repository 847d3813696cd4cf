"""nginx, the floor of polls and publishes: it parses a request and answers it by `return 200`, with a body as long."""

from __future__ import annotations

import os
import shutil

from .processes import Bench, ServerProcess, free_port

__all__ = ["MISSING", "nginx"]

MISSING = "no ratio: nginx, the floor, is not installed (apt-get install nginx-light)"

# One worker, like the server under test. Nothing is logged, and no connection is closed for its age.
CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{body}'; }} }}
}}
"""


def nginx(bench: Bench, body: bytes) -> ServerProcess | None:
    """Start nginx on a port of its own. Returns None where it is not installed."""
    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if program is None:
        return None
    port = free_port()
    text = CONFIG.format(folder=bench.directory, port=port, body="x" * len(body))
    config = bench.file(text.encode())
    return bench.other_server([program, "-p", str(bench.directory), "-e", "stderr", "-c", str(config)], port)
