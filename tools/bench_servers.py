"""Starts what is measured, on a core of its own, and runs `tidegate bench` against it on another."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

NCHAN_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
# As it comes, but for the limits that would stop the run.
NCHAN = """
load_module {module};
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/sub/(.+)$ {{ nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
    location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 100; }}
  }}
}}
"""
# How a server other than this gateway is asked.
REQUESTS = {
    "nchan": ("--subscribe-request", "GET /sub/{channel}", "--publish-request", "POST /pub/{channel}\n\n{payload}"),
}


@dataclass(frozen=True)
class Run:
    """One measurement: a server and the load on it."""

    server: str  # gateway; redis (a gateway over it); the floor's fanout or echo; or nchan
    transport: str
    load: tuple[str, ...]
    label: str = ""

    def title(self):
        if self.label:
            return self.label
        return {
            "gateway": self.transport,
            "redis": f"{self.transport} over Redis",
            "nchan": f"nchan, {self.transport}",
        }.get(self.server, f"floor ({self.server})")


def has_nchan():
    return NCHAN_MODULE.exists() and shutil.which("nginx") is not None


def measure(run, options):
    """Starts the server, loads it, and returns what `tidegate bench` says."""
    with broker(run.server, options) as url, server(run.server, options, url) as (pid, public, internal):
        return load(run, options, pid, public, internal)


def load(run, options, pid, public, internal):
    """Loads a server that runs."""
    command = [
        *pinned(options.client_core, options.client),
        "bench",
        *("--url", f"http://127.0.0.1:{public}", "--internal-url", f"http://127.0.0.1:{internal}"),
        *("--transport", run.transport, "--server-pid", str(pid), "--json"),
        *REQUESTS.get(run.server, ()),
        *run.load,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        # What lost a message has no figures.
        sys.exit(f"{run.title()}: {' '.join(command)}\nended with {done.returncode}\n{done.stdout}")
    return json.loads(done.stdout)


@contextmanager
def broker(kind, options):
    """The gateway's `broker.url`: a fresh Redis on the client's core, so that it takes nothing from the gateway's."""
    if kind != "redis":
        yield "memory:"
        return
    port = free_port()
    command = pinned(options.client_core, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_port(process, port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(kind, options, url="memory:"):
    """A fresh server; its process and its two ports."""
    public, internal = free_port(), free_port()
    environment = dict(os.environ)
    folder = tempfile.mkdtemp(prefix="tidegate-bench-")
    if kind in ("gateway", "redis"):
        command = [options.gateway]
        environment["TIDEGATE_BROKER__URL"] = url
        environment["TIDEGATE_PUBLIC__LISTEN"] = f"127.0.0.1:{public}"
        environment["TIDEGATE_INTERNAL__LISTEN"] = f"127.0.0.1:{internal}"
    elif kind == "nchan":
        internal = public
        config = pathlib.Path(folder, "nginx.conf")
        files = 19_900
        config.write_text(NCHAN.format(module=NCHAN_MODULE, folder=folder, port=public, files=files))
        command = ["nginx", "-c", config, "-p", folder, "-e", f"{folder}/error.log"]
    else:
        internal = public
        command = [options.floor, kind, "--port", str(public)]
    process = subprocess.Popen(
        pinned(options.server_core, *command),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_port(process, internal)
        await_port(process, public)
        if kind == "redis":
            await_ready(internal)
        yield process.pid, public, internal
    finally:
        # SIGINT: the gateway drains for a second at most.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def memory(pid):
    """Resident memory of a process, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    sys.exit(f"/proc/{pid}/smaps_rollup has no Rss")


def pinned(core, *command):
    return ["taskset", "--cpu-list", str(core), *map(str, command)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(process, port):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}: {process.args}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def await_ready(port):
    """Until Redis has answered the gateway."""
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
            return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    sys.exit("the gateway is not ready")
