"""The image: what is in it, who it runs as, how it is stopped."""

import pathlib
import re
import subprocess
import sys
import tarfile

from builder import COMMIT, IMAGE, ROOT, SCRATCH, engine, must, run
from conftest import LIMITS, eventually

MIB = 1024 * 1024


def toml_version() -> str:
    return re.search('^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def test_the_dockerfile_is_well_made():
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    must(run(hadolint, ROOT / "deploy" / "Dockerfile"))


def test_the_configuration_of_the_image(image):
    config = image["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/tidegate"]
    assert set(config["ExposedPorts"]) == {"8000/tcp", "9000/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    check = image["Healthcheck"]
    assert check["Test"] == ["CMD", "/usr/bin/tidegate", "ready"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image["Labels"].items()}
    assert labels["version"] == toml_version()
    assert labels["revision"] == COMMIT and labels["licenses"] == "Apache-2.0"
    assert {"title", "description"} <= labels.keys()


def test_it_holds_one_static_program_and_is_small(image, tmp_path):
    must(engine("podman", "save", "--quiet", "--format", "docker-archive", "--output", tmp_path / "image.tar", IMAGE))
    files = {}
    with tarfile.open(tmp_path / "image.tar") as archive:
        for layer in (member for member in archive if member.name.endswith(".tar")):
            with tarfile.open(fileobj=archive.extractfile(layer)) as content:
                for member in content:
                    if member.isfile():
                        files[member.name] = (member.size, member.mode)
                    if member.name == "usr/bin/tidegate":
                        content.extract(member, tmp_path, filter="data")
    assert files.keys() == {"usr/bin/tidegate", "etc/tidegate/tidegate.toml", "etc/ssl/certs/ca-certificates.crt"}
    assert all(mode & 0o022 == 0 for _, mode in files.values()), "only root may write to what is there"
    assert (tmp_path / "image.tar").stat().st_size < 25 * MIB, files
    headers = must(run("readelf", "--wide", "--program-headers", "--dynamic", tmp_path / "usr/bin/tidegate"))
    assert "INTERP" not in headers and "NEEDED" not in headers, "it needs a libc that the image has none of"


def test_without_credentials_it_says_what_to_do_and_ends(image):
    done = engine("podman", "run", "--rm", "--network", "none", *LIMITS, IMAGE)
    assert done.returncode == 64
    assert "public.listen" in done.stderr and "--insecure" in done.stderr


def test_who_it_is_and_what_it_may(container):
    gateway = container("--insecure").until_ready()
    state = gateway.inspect()
    pid = state["State"]["Pid"]
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    root = next(line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                if line.split()[4] == "/")
    assert "ro" in root[5].split(","), "it needs nothing but a read-only root"
    assert re.search(rf'commit="{COMMIT}",version="{toml_version()}"', metrics(gateway))


def metrics(gateway) -> str:
    return must(run(*gateway.beside("curl", "--silent", "--fail", "http://127.0.0.1:9000/metrics")))


def memory_limit(pid: int) -> int:
    """The limit of the cgroup in which a process is, of either version."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        place = pathlib.Path("/sys/fs/cgroup") / ("memory" if controllers else "") / path.lstrip("/")
        if controllers in ("", "memory"):
            for name in ("memory.limit_in_bytes", "memory.max"):
                if (place / name).exists():
                    return int((place / name).read_text())
    raise AssertionError("no cgroup has a limit of memory")


def test_it_serves_within_its_limit_of_memory(container):
    gateway = container("--insecure").until_ready()
    assert memory_limit(gateway.inspect()["State"]["Pid"]) == 128 * MIB
    body = SCRATCH / "body"
    body.write_text("x" * 64 * 1024)
    load = ["curl", "--silent", "--fail", "--output", "/dev/null", "--data-binary", f"@{body}",
            "http://127.0.0.1:9000/v1/channels/load[1-200]/messages"]
    must(run(*gateway.beside(*load)))
    assert gateway.exec("tidegate", "ready").stdout == "ready\n", gateway.logs()
    assert not gateway.inspect()["State"]["OOMKilled"]


def test_a_message_passes_and_the_check_of_the_image_says_healthy(container, image):
    gateway = container("--insecure").until_ready()
    check = image["Healthcheck"]["Test"]
    assert gateway.exec(*check[1:]).returncode == 0
    command = gateway.beside("curl", "--silent", "--no-buffer", "http://127.0.0.1:8000/v1/subscribe?channel=a&transport=sse&since=earliest")
    must(gateway.exec("tidegate", "publish", "a", "hello"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        assert any("hello" in line for line in subscriber.stdout)
        subscriber.terminate()


def test_sigterm_drains_and_the_exit_code_is_0(container):
    notice = ("--env", "TIDEGATE_DRAIN__NOTICE=1s", "--env", "TIDEGATE_DRAIN__PERIOD=2s")
    gateway = container("--insecure", options=notice).until_ready()
    follow = gateway.beside("curl", "--silent", "--no-buffer", "http://127.0.0.1:8000/v1/subscribe?channel=a&transport=sse")
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as subscriber:
        eventually("it is subscribed", lambda: 'tidegate_connections{transport="sse"} 1' in metrics(gateway))
        must(engine("podman", "stop", "--time", "40", gateway.id))
        assert "shutdown" in subscriber.communicate(timeout=10)[0], "the client is told"
    state = gateway.inspect()["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), gateway.logs()


# A server of names that knows one, for a static program has no resolver but its own.
NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    query, client = server.recvfrom(512)
    name = query[12:query.index(0, 12) + 5]
    known = name[:-4] == b"\\x07gateway\\x04test\\x00" and name[-4:] == b"\\x00\\x01\\x00\\x01"
    answer = name[:-4] + b"\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x3c\\x00\\x04\\x7f\\x00\\x00\\x01" if known else b""
    code = b"\\x81\\x80" if name[:-4] == b"\\x07gateway\\x04test\\x00" else b"\\x81\\x83"
    counts = b"\\x00\\x01\\x00" + bytes([known]) + b"\\x00\\x00\\x00\\x00"
    server.sendto(query[:2] + code + counts + name + answer, client)
"""


def test_names_are_looked_up_by_dns_and_in_etc_hosts(container):
    resolver = SCRATCH / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    gateway = container("--insecure", options=("--volume", f"{resolver}:/etc/resolv.conf:ro", "--add-host",
                                               "listed.test:127.0.0.1")).until_ready()
    with subprocess.Popen(gateway.beside(sys.executable, "-c", NAMES)) as names:
        try:
            for host in ("localhost", "listed.test", "gateway.test"):
                done = gateway.exec("tidegate", "publish", "--url", f"http://{host}:9000", "a", "hello")
                assert done.returncode == 0, f"{host}: {done.stderr}"
            done = gateway.exec("tidegate", "publish", "--url", "http://unknown.test:9000", "a", "hello")
            assert done.returncode == 1 and "cannot connect" in done.stderr
        finally:
            names.kill()
