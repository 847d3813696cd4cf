"""The proxies that are known, by what they write into an answer, and the words that cure a finding in each.

Invariant: each cure is a line that its proxy's own configuration has. To add a proxy, add it to `PROXIES` and to the
tables of `CURES`; `deploy/proxies` has a whole file for each of those that are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["CURES", "PROXIES", "REWRITTEN", "cure_for", "proxy_of"]

PROXIES: Mapping[str, re.Pattern[str]] = {
    "nginx": re.compile(r"(?i)nginx|openresty"),
    "haproxy": re.compile(r"(?i)haproxy"),  # writes nothing itself
    "caddy": re.compile(r"(?i)caddy"),
    "httpd": re.compile(r"(?i)apache"),
    "traefik": re.compile(r"(?i)traefik"),
}

REWRITTEN = "origin, rewritten"

CURES: Mapping[str, Mapping[str, str]] = {
    "server": {"": "Look at the proxy's route to the server, and whether that runs; a prefix belongs in the URL."},
    "host": {
        "": "Forward Host as the browser sent it, with the port, and add it to the server's setting `hosts`.",
        "nginx": "proxy_set_header Host $http_host; and add the host to the server's setting `hosts`.",
        "httpd": "ProxyPreserveHost On; and add the host to the server's setting `hosts`.",
        "haproxy": "Remove `http-request set-header Host`; and add the host to the server's setting `hosts`.",
        "caddy": "Remove `header_up Host`; and add the host to the server's setting `hosts`.",
        "traefik": "passHostHeader: true; and add the host to the server's setting `hosts`.",
    },
    "http-version": {
        "": "Let the proxy speak HTTP/1.1 to the server.",
        "nginx": "proxy_http_version 1.1;",
        "httpd": "Remove `SetEnv force-proxy-request-1.0`.",
    },
    "ready": {
        "": "Let the proxy check GET /readyz, and look into the log of that node: it stops, or has lost its broker.",
        "haproxy": "option httpchk GET /readyz, and `check` on each server; the log of that node says what it lacks.",
        "caddy": "health_uri /readyz; the log of that node says what it lacks.",
        "traefik": "healthCheck: { path: /readyz }; the log of that node says what it lacks.",
    },
    "upgrade": {
        "": "Forward Upgrade and Connection, over HTTP/1.1.",
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
        "haproxy": "Remove what deletes Upgrade or Connection (`http-request del-header`).",
        "caddy": "Remove `header_up -Upgrade` and `header_up -Connection`.",
        "httpd": "ProxyPass / http://SERVER/ upgrade=websocket (httpd 2.4.47), with mod_proxy_wstunnel.",
        "traefik": "Remove the middleware that drops Upgrade or Connection.",
    },
    "buffering": {
        "": "Switch off the buffering of answers for text/event-stream.",
        "nginx": "Remove `proxy_ignore_headers X-Accel-Buffering`, or set proxy_buffering off;",
        "haproxy": "option http-no-delay; and no `http-response wait-for-body`.",
        "caddy": "Remove `flush_interval`, `response_buffers` and what else buffers; or set flush_interval -1.",
        "httpd": "ProxyPass / http://SERVER/ flushpackets=on, and no mod_buffer for this path.",
        "traefik": "Remove the middleware `buffering`.",
    },
    "compression": {
        "": "Exclude text/event-stream from compression.",
        "nginx": "Take text/event-stream and * out of gzip_types.",
        "haproxy": "Take text/event-stream out of `compression type`.",
        "caddy": "Do not `encode` this path, or exclude text/event-stream in its `match`.",
        "httpd": "SetEnvIf Request_URI ^/v1/ no-gzip=1, or take text/event-stream out of the types for DEFLATE.",
        "traefik": "compress: { excludedContentTypes: [text/event-stream] }",
    },
    "quiet": {
        "": "Raise the proxy's idle timeout above the server's heartbeat, or lower limits.heartbeat_seconds.",
        "nginx": "proxy_read_timeout 60s; (its default) or more; proxy_send_timeout too.",
        "haproxy": "timeout client 50s, timeout server 50s, timeout tunnel 50s or more.",
        "caddy": "Remove `read_timeout`, `write_timeout` and `response_header_timeout` for this path.",
        "httpd": "ProxyTimeout 60 or more, and Timeout; no timeout= on ProxyPass below it.",
        "traefik": "Raise forwardingTimeouts and respondingTimeouts.",
    },
    "cors": {
        "": "Pass the server's Access-Control-Allow-… headers on unaltered, and OPTIONS to the server.",
        "nginx": "Remove `proxy_hide_header Access-Control-Allow-Origin` and your own `add_header Access-Control-…`.",
        "haproxy": "Remove `http-response del-header` and `set-header` of Access-Control-…",
        "caddy": "Remove `header` and `header_down` lines of Access-Control-…",
        "httpd": "Remove `Header unset` and `Header set` lines of Access-Control-…",
        "traefik": "Remove the middleware `headers` with accessControl… keys.",
    },
    "origin": {"": "Add this origin to the server's setting `origins`."},
    REWRITTEN: {
        "": "Let the proxy pass Origin on as the browser sent it.",
        "nginx": "Remove `proxy_set_header Origin`.",
        "haproxy": "Remove `http-request set-header Origin`.",
        "caddy": "Remove `header_up Origin`.",
        "httpd": "Remove `RequestHeader set Origin`.",
        "traefik": "Remove the middleware `headers` with customRequestHeaders of Origin.",
    },
    "clock": {"": "Let both machines take their time from NTP: tokens end too early or too late."},
    "token": {
        "": "Look with `oncecast token inspect` and the server's settings; the proxy must forward Authorization."
    },
    "one-log": {"": "Give every node the same broker, as in --broker redis://…, with the same prefix or topic."},
}
"""What to do about a finding of a check: by proxy, and "" for any. `REWRITTEN` is another finding of `origin`."""


def proxy_of(headers: Mapping[str, str]) -> str | None:
    """Return the name of the proxy that has written into an answer's headers, if it is known. Oncecast does not."""
    written = f"{headers.get('server', '')} {headers.get('via', '')}"
    return next((name for name, pattern in PROXIES.items() if pattern.search(written)), None)


def cure_for(check: str, proxy: str | None) -> str:
    """Return what to do about a finding, in the words of the proxy where it is known."""
    cures = CURES[check]
    return cures.get(proxy or "", cures[""])
