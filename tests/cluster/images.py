"""Images of what stands beside the gateway, of this machine's own programs: Redis, and the process that holds a pod.

usage: images.py FOLDER    writes redis.tar and pause.tar there
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "image"))
from builder import engine, must, run  # noqa: E402

# It waits until it is told to end, and takes the exit codes of orphans, as Kubernetes' own does.
PAUSE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def image(name: str, context: pathlib.Path, entrypoint: str, archive: pathlib.Path) -> None:
    (context / "Dockerfile").write_text(f'FROM scratch\nCOPY root /\nUSER 65532:65532\nENTRYPOINT ["{entrypoint}"]\n')
    must(engine("buildah", "bud", "--isolation", "chroot", "--tag", name, context))
    must(engine("buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}"))


def redis(context: pathlib.Path, archive: pathlib.Path) -> None:
    """redis-server and the libraries that it names."""
    # The name stays: the program that it leads to is redis-check-rdb, and is what it is called.
    program = shutil.which("redis-server")
    libraries = re.findall(r"(/\S+) \(0x", must(run("ldd", program)))
    for path in [program, *libraries]:
        there = context / "root" / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    image("localhost/redis:1", context, program, archive)


def pause(context: pathlib.Path, archive: pathlib.Path) -> None:
    (context / "root").mkdir()
    (context / "pause.c").write_text(PAUSE)
    must(run("cc", "-static", "-O2", "-o", context / "root/pause", context / "pause.c"))
    image("localhost/pause:1", context, "/pause", archive)


for make in (redis, pause):
    with tempfile.TemporaryDirectory() as folder:
        make(pathlib.Path(folder), pathlib.Path(sys.argv[1]) / f"{make.__name__}.tar")
