"""A SLURM of two nodes on one machine: munged, slurmctld and two slurmd on loopback, everything in one folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PATIENCE = 600
"""Seconds for a job, on a machine that has other things to do."""
NODES = ("node1", "node2")
CONF = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
SchedulerType=sched/builtin
SchedulerParameters=requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
JobRequeue=1
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=1:00:00 State=UP OverSubscribe=NO
"""


class Cluster:
    """Started on entering, stopped on leaving. `folder` is short: a socket's path may have 107 characters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Names of the nodes lead nowhere here; where they do, as on every real cluster, MASTER_ADDR is not needed.
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1",
                                 "MASTER_ADDR": "127.0.0.1"}
        self._daemons = ExitStack()

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            self._daemons = stack
            self._configure()
            munge = self.folder / "munge"
            self._start("munged", "--foreground", "--force", f"--socket={munge}.socket", f"--key-file={munge}.key",
                        f"--pid-file={munge}.pid", f"--log-file={munge}.log", f"--seed-file={munge}.seed")
            self.until(munge.with_suffix(".socket").exists, 30, "munged")
            self._start("slurmctld", "-D", "-c", "-i")
            for node in NODES:
                self._start("slurmd", "-D", "-c", "-N", node)
            self.until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60, "two idle nodes")
            self._daemons = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._daemons.close()

    def ask(self, *words: str) -> str:
        """What a command of SLURM's prints; '' where it fails."""
        return subprocess.run(words, env=self.env, capture_output=True, text=True).stdout.strip()

    def submit(self, script: Path, *options: str) -> str:
        """The job's id. What it prints is appended to <script>.log."""
        output = [f"--output={script}.log", "--open-mode=append"]
        done = subprocess.run(["sbatch", "--parsable", *output, *options, script], env=self.env, capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def states(self, job: str) -> set[str]:
        """Of a job, or of all tasks of an array."""
        words = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return {word.partition("=")[2] for word in words if word.startswith("JobState=")}

    def wait(self, job: str, state: str = "COMPLETED") -> None:
        self.until(lambda: self.states(job) == {state}, PATIENCE, f"job {job} being {state}")

    def _configure(self) -> None:
        free = [socket.socket() for _ in range(3)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in free]
        for each in free:
            each.close()
        host = socket.gethostname().partition(".")[0]
        self.folder.chmod(0o755)  # munge wants its socket to be reached by everybody
        (self.folder / "slurm.conf").write_text(CONF.format(
            host=host, user=getpass.getuser(), folder=self.folder, ports=ports))
        # No cgroups are used; 22.05 asks for their folder all the same.
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={self.folder}/cgroup\n")
        for name in ("cgroup", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def _start(self, *words: str) -> None:
        log = self._daemons.enter_context((self.folder / f"{words[0]}.out").open("ab"))
        daemon = subprocess.Popen(words, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._daemons.callback(_stop, daemon)

    def until(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds} s\n{self.told()}")
            time.sleep(0.2)

    def told(self) -> str:
        """The end of all logs."""
        logs = sorted([*self.folder.rglob("*.log"), *self.folder.rglob("*.out")])
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def missing() -> Sequence[str]:
    """Programs that this machine does not have; they are in Debian's packages slurm-wlm and munge."""
    return [name for name in PROGRAMS if not shutil.which(name)]
