"""Private servers: each in its own temporary folder, run by an unprivileged user, gone when the benchmark is."""
import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from case import Failed

PR_SET_PDEATHSIG = 1


def unprivileged():
    """The user that servers run as: PostgreSQL refuses to be started by root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failed("neither a user postgres nor nobody")


class Process:
    """A server as a child of ours. The kernel sends it `end` when we die, so that even kill -9 leaves none behind."""

    def __init__(self, prefix, end):
        self.user, self.end, self.child = unprivileged(), end, None
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
        os.chmod(self.dir, 0o755)
        shutil.chown(self.dir, self.user.pw_uid, self.user.pw_gid)

    def become(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}

    def run(self, *command, **kw):
        """Runs a program of the server's to its end, as the server's user."""
        done = subprocess.run(command, text=True, capture_output=True, cwd=self.dir, **self.become(), **kw)
        if done.returncode != 0:
            raise Failed(f"{os.path.basename(command[0])}: {(done.stderr or done.stdout).strip()[-800:]}")
        return done.stdout

    def start(self, *command):
        libc = ctypes.CDLL(None)
        self.log = open(self.dir / "log", "w")
        self.child = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                      start_new_session=True, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, self.end),
                                      **self.become())

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def last_words(self):
        return (self.dir / "log").read_text(errors="replace")[-800:]

    def stop(self):
        if self.alive():
            self.child.send_signal(self.end)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def stop_on_signals():
    """A polite end by signal runs the finally blocks, as Ctrl-C does."""
    def leave(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def load_command(command, timeout, **environment):
    """Runs a load driver; what it wrote to stdout and stderr, or Failed with what it complained about."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=timeout, env={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        raise Failed(f"{os.path.basename(command[0])} did not end in {timeout:.0f} s") from None
    if done.returncode != 0:
        raise Failed(f"{os.path.basename(command[0])}: {done.stderr.strip()[-800:]}")
    return done.stdout, done.stderr
