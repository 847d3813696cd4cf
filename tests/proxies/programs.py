"""The real proxies: Debian's nginx, HAProxy, Caddy and Apache httpd, each a process with a folder and ports of its own.

A `Program` turns the file of `deploy/proxies` into the one that is started: `fitted` replaces its ports, the addresses
of the servers and the certificate, and nothing else, and fails where one of them is not in the file. `default` is the
least that one writes to have the program forward everything to one server; all else is as the program or Debian has it.

Invariant: a program that `running` has started has ended when its `with` is left. To add a proxy, write a class and add
it to `PROGRAMS`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scripts.broker_servers.system import free_ports, listens
from tests.brokers.certificates import Pair

FILES = Path(__file__).parents[2] / "deploy" / "proxies"
SERVERS = ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003")  # in each file
SECONDS = 60.0  # to start, and to stop
GOODBYE_SECONDS = 1.0  # after that the program's processes are killed, which httpd's first one hears, and ends in order
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Site:
    """Where a proxy stands: its ports, the ports of the servers behind it, its certificate and its folder."""

    plain: int
    secure: int
    servers: Sequence[int]
    pair: Pair
    folder: Path


class Program:
    """A proxy. `file` is its file in `deploy/proxies`, `sticky` the kinds of stickiness that the file offers."""

    name: ClassVar[str]
    file: ClassVar[str]
    program: ClassVar[str]
    sticky: ClassVar[tuple[str, ...]]

    def fitted(self, site: Site, *, sticky: str | None = None) -> str:
        """Return the file of `deploy/proxies` for this site; `sticky`: with its lines of that kind uncommented."""
        text = (FILES / self.file).read_text("utf-8")
        if sticky is not None:
            text = self.uncommented(text, sticky)
        servers = dict(zip(SERVERS, (f"127.0.0.1:{port}" for port in site.servers), strict=True))
        return replaced(text, {**servers, **self.places(site)})

    def uncommented(self, text: str, sticky: str) -> str:
        """Uncomment the lines that end in `# by …`, as the file says to."""
        return uncommented(text, rf"\S.*# by {sticky}\b")

    def places(self, site: Site) -> Mapping[str, str]:
        """Return what is replaced in the file besides the servers."""
        raise NotImplementedError

    def default(self, site: Site) -> str:
        """Return the least that forwards everything to the first server of the site."""
        raise NotImplementedError

    def whole(self, text: str, site: Site) -> str:
        """Return the file that is started, which has `text` or includes it."""
        return text

    def command(self, file: Path, site: Site) -> list[str]:
        """Return the command that runs the program in the foreground on a file."""
        raise NotImplementedError


class Nginx(Program):
    """nginx with Debian's own nginx.conf, whose pid and logs are moved, and which includes the file."""

    name = "nginx"
    file = "nginx.conf"
    program = "nginx"
    sticky = ("source", "cookie", "user")

    def uncommented(self, text: str, sticky: str) -> str:
        text = super().uncommented(text, sticky)
        return uncommented(text, r"userid") if sticky == "cookie" else text

    def places(self, site: Site) -> Mapping[str, str]:
        return {
            "listen 80;": f"listen 127.0.0.1:{site.plain};",
            "listen 443 ssl": f"listen 127.0.0.1:{site.secure} ssl",
            "/etc/ssl/example.com.crt": str(site.pair.cert),
            "/etc/ssl/example.com.key": str(site.pair.key),
        }

    def default(self, site: Site) -> str:
        return f"""
            server {{
                listen 127.0.0.1:{site.plain};
                location / {{ proxy_pass http://127.0.0.1:{site.servers[0]}; }}
            }}"""

    def whole(self, text: str, site: Site) -> str:
        included = site.folder / "oncecast.conf"
        included.write_text(text, "utf-8")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"    {kind}_temp_path {site.folder}/{kind};\n" for kind in kinds)
        changes = {
            "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};",
            "pid /run/nginx.pid;": f"pid {site.folder}/nginx.pid;",
            "error_log /var/log/nginx/error.log;": "error_log stderr;",
            "access_log /var/log/nginx/access.log;": f"access_log off;\n{temporary}",
            "include /etc/nginx/conf.d/*.conf;": f"include {included};",
            "include /etc/nginx/sites-enabled/*;": "",
        }
        return replaced(Path("/etc/nginx/nginx.conf").read_text("utf-8"), changes)

    def command(self, file: Path, site: Site) -> list[str]:
        return [found(self.program), "-p", str(site.folder), "-c", str(file), "-g", "daemon off;"]


class Haproxy(Program):
    """HAProxy; its default has the timeouts of Debian's haproxy.cfg."""

    name = "haproxy"
    file = "haproxy.cfg"
    program = "haproxy"
    sticky = ("source", "cookie", "user")

    def uncommented(self, text: str, sticky: str) -> str:
        if sticky != "cookie":
            text = replaced(uncommented(text, "hash-type"), {"    balance roundrobin\n": ""})
        return super().uncommented(text, sticky)

    def places(self, site: Site) -> Mapping[str, str]:
        return {
            "bind :80\n": f"bind 127.0.0.1:{site.plain}\n",
            "bind :443": f"bind 127.0.0.1:{site.secure}",
            "/etc/haproxy/example.com.pem": str(site.pair.both),
        }

    def default(self, site: Site) -> str:
        debian = Path("/etc/haproxy/haproxy.cfg").read_text("utf-8")
        settings = "".join(re.findall(r"^(defaults\n|\tmode.*\n| +timeout .*\n)", debian, re.MULTILINE))
        return f"""{settings}
frontend web
    bind 127.0.0.1:{site.plain}
    default_backend servers
backend servers
    server one 127.0.0.1:{site.servers[0]}
"""

    def command(self, file: Path, site: Site) -> list[str]:
        return [found(self.program), "-db", "-f", str(file)]


class Caddy(Program):
    """Caddy, without its port for administration."""

    name = "caddy"
    file = "Caddyfile"
    program = "caddy"
    sticky = ("source", "cookie", "user")

    def uncommented(self, text: str, sticky: str) -> str:
        text = replaced(text, {"\t\tlb_policy round_robin\n": ""})
        if sticky == "user":
            text = uncommented(text, "request_header")
        return super().uncommented(text, sticky)

    def places(self, site: Site) -> Mapping[str, str]:
        return {
            "example.com {\n": f"http://:{site.plain} {{\n\tbind 127.0.0.1\n\timport site\n}}\n"
            f"https://127.0.0.1:{site.secure}, https://localhost:{site.secure} {{\n\tbind 127.0.0.1\n"
            f"\ttls {site.pair.cert} {site.pair.key}\n"
        }

    def default(self, site: Site) -> str:
        return f"http://:{site.plain} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{site.servers[0]}\n}}\n"

    def whole(self, text: str, site: Site) -> str:
        return f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}"

    def command(self, file: Path, site: Site) -> list[str]:
        return [found(self.program), "run", "--config", str(file), "--adapter", "caddyfile"]


class Httpd(Program):
    """Apache httpd, with the modules that the file names and those that no httpd can be without."""

    name = "httpd"
    file = "httpd.conf"
    program = "apache2"
    sticky = ("cookie",)
    modules = "/usr/lib/apache2/modules"

    def uncommented(self, text: str, sticky: str) -> str:
        return uncommented(uncommented(text, "ProxySet"), "Header add")  # a comment has a line of its own

    def places(self, site: Site) -> Mapping[str, str]:
        return {
            "*:80": f"127.0.0.1:{site.plain}",
            "*:443": f"127.0.0.1:{site.secure}",
            "/etc/ssl/example.com.crt": str(site.pair.cert),
            "/etc/ssl/example.com.key": str(site.pair.key),
        }

    def default(self, site: Site) -> str:
        server = f"http://127.0.0.1:{site.servers[0]}/"
        return f"ProxyPass / {server}\nProxyPassReverse / {server}\n"

    def whole(self, text: str, site: Site) -> str:
        enabled = re.search(r"a2enmod (.*)", (FILES / self.file).read_text("utf-8"))
        assert enabled is not None
        names = [
            "mpm_event",
            "authz_core",
            "slotmem_shm",
            "socache_shmcb",
            "deflate",
            "filter",
            "env",
            *enabled[1].split(),
        ]
        loaded = "".join(f"LoadModule {name}_module {self.modules}/mod_{name}.so\n" for name in names)
        return (
            f"{loaded}ServerRoot {site.folder}\nDefaultRuntimeDir {site.folder}\nPidFile {site.folder}/httpd.pid\n"
            f"ErrorLog {site.folder}/error.log\nServerName localhost\nUser www-data\nGroup www-data\n"
            f"Listen 127.0.0.1:{site.plain}\nListen 127.0.0.1:{site.secure}\n{text}"
        )

    def command(self, file: Path, site: Site) -> list[str]:
        return [found(self.program), "-D", "FOREGROUND", "-f", str(file)]


PROGRAMS: Mapping[str, Program] = {each.name: each for each in (Nginx(), Haproxy(), Caddy(), Httpd())}


@contextlib.contextmanager
def running(program: Program, text: str, site: Site) -> Iterator[None]:
    """Run a program on a text for this site, as `fitted` or `default` returns it, until the `with` is left."""
    site.folder.mkdir(exist_ok=True)
    file = site.folder / f"whole-{program.file}"
    file.write_text(program.whole(text, site), "utf-8")
    log = site.folder / "output.log"
    environ = {"PATH": os.environ["PATH"], "HOME": str(site.folder), "XDG_DATA_HOME": str(site.folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            program.command(file, site), stdout=output, stderr=output, env=environ, start_new_session=True
        )
    try:
        end = time.monotonic() + SECONDS
        while not listens(site.plain):
            if process.poll() is not None or time.monotonic() > end:
                logs = [each.read_text("utf-8", "replace")[-2000:] for each in site.folder.glob("*.log")]
                raise RuntimeError(f"{program.name} does not start:\n" + "\n".join(logs))
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        process.terminate()
        try:
            process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            for each in _children(process.pid) or [process.pid]:  # they wait for their streams
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it has started, if it has not ended that itself
                os.killpg(process.pid, signal.SIGKILL)


def site_of(folder: Path, servers: Sequence[int], pair: Pair) -> Site:
    """Return a site on free ports."""
    plain, secure = free_ports(2)
    return Site(plain, secure, servers, pair, folder)


def listening_sockets(count: int) -> list[socket.socket]:
    """Return sockets that listen, for servers that come and go behind a proxy while no connection is refused."""
    sockets = []
    for port in free_ports(count):
        sockets.append(socket.socket())
        sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sockets[-1].bind(("127.0.0.1", port))
        sockets[-1].listen(1024)
    return sockets


# Helpers ---------------------------------------------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text("ascii").split())
    return children


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Replace each of these texts, which must be there."""
    for old, new in changes.items():
        assert old in text, f"the file has no {old!r}"
        text = text.replace(old, new)
    return text


def uncommented(text: str, pattern: str) -> str:
    """Uncomment the lines that begin with a pattern behind their `#`; there must be one."""
    text, count = re.subn(rf"^([ \t]*)#(?={pattern})", r"\1", text, flags=re.MULTILINE)
    assert count, f"no line that is commented out begins with {pattern!r}"
    return text


def found(program: str) -> str:
    """Return the path of a program of Debian."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None, f"there is no {program}: run scripts/system-packages"
    return path
