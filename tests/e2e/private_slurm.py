"""A SLURM of this machine alone, for the time of a test: its own key, ports and folder, on the loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
NEEDED = (*DAEMONS, "sbatch", "setpriv")
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # not in a user's PATH
START_SECONDS = 120.0
REQUEUE_SECONDS = 10  # SLURM holds a requeued job back for as long as a credential is good

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=5
ReturnToService=2
# As many CPUs as the tests want, whatever the machine has; nothing listens beyond the loopback.
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def answers() -> bool:
    """Whether this user's commands reach a controller."""
    if shutil.which("sbatch") is None:
        return False
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def why_not() -> str:
    """What a private one lacks here; nothing where it can be started."""
    missing = [name for name in NEEDED if shutil.which(name, path=PLACES) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "its daemons start jobs for others, so root has to start them"


@contextmanager
def started(folder: Path) -> Iterator[Path]:
    """Start the daemons, give the configuration, and end them and their jobs.

    Args:
        folder: where they keep everything; its path should be short, as a socket's has to be.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    controller, daemon = free_ports(2)
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(
            host=host, controller=controller, daemon=daemon, folder=folder, requeue=REQUEUE_SECONDS
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(file)}
    munged = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in (
        "key-file", "socket", "pid-file", "log-file", "seed-file"
    )]  # fmt: skip

    def asked(*command: str) -> str:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    with ExitStack() as running:
        start(running, folder, environment, "munged", "--foreground", "--force", *munged)
        wait(folder, lambda: (folder / "munge.socket").exists())
        start(running, folder, environment, "slurmctld", "-D")
        start(running, folder, environment, "slurmd", "-D", "-N", host)
        wait(folder, lambda: asked("sinfo", "--noheader", "--format", "%T") == "idle")
        running.callback(wait, folder, lambda: asked("squeue", "--noheader") == "")
        running.callback(asked, "scancel", "--user", "root")
        yield file


def start(running: ExitStack, folder: Path, environment: dict[str, str], name: str, *arguments: str) -> None:
    """Start a daemon that stays in the foreground, and is ended with `running`, or where the tests are killed."""
    program = shutil.which(name, path=PLACES)
    assert program is not None
    command = ["setpriv", "--pdeathsig", "TERM", program, *arguments]
    with (folder / f"{name}.printed").open("wb") as printed:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=printed,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def end() -> None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    running.callback(end)


def wait(folder: Path, due: Callable[[], bool]) -> None:
    """Wait until `due`.

    Raises:
        AssertionError: with the end of every daemon's log, where it takes too long.
    """
    until = time.monotonic() + START_SECONDS
    while not due():
        if time.monotonic() > until:
            logs = sorted([*folder.glob("*.log"), *folder.glob("*.printed")])
            told = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
            raise AssertionError(f"the private SLURM is not ready after {START_SECONDS:g} s\n{told}")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
