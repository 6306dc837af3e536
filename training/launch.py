"""Which launcher has started this process, by its environment, and whether the others can be there.

msrun sets MS_ROLE, MS_WORKER_NUM, MS_SCHED_HOST and MS_SCHED_PORT; a platform with Ascend devices RANK_SIZE and
RANK_TABLE_FILE; mpirun OMPI_COMM_WORLD_SIZE.  Such variables are also left behind in a shell, or set by a platform for
a job of one process: a process that waits for others which were not started must say so.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path

log = logging.getLogger("geospore")
ROLE, WORKER, SCHEDULER = "MS_ROLE", "MS_WORKER", "MS_SCHED"
CLUSTER = (ROLE, "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT")  # what msrun sets
TABLES = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH")
SIZES = ("MS_WORKER_NUM", "RANK_SIZE", "OMPI_COMM_WORLD_SIZE")
NUMBERS = ("MS_NODE_ID", "RANK_ID", "DEVICE_ID")
TOPOLOGY_TIMEOUT = "MS_TOPO_TIMEOUT"  # seconds that all processes have to appear
ANSWER_SECONDS = 12.0  # for the scheduler of a process that no msrun has started
MSRUN_SECONDS = 600.0  # of one that msrun has started: other servers may be late
MSRUN = ("msrun", "mindspore.parallel.cluster.run", "mindspore/parallel/cluster/run")


class RankError(ValueError):
    """Processes of one run that do not fit together: one line with what differs and what to do."""

    exit_code = 2


def is_launched() -> bool:
    """Whether msrun, mpirun, or a platform with a rank table, has started this process as one of several.

    Raises:
        RankError: a number of processes is none.
    """
    if os.environ.get(ROLE) or number("OMPI_COMM_WORLD_SIZE", 1) > 1:
        return True
    return number("RANK_SIZE", 1) > 1 and any(Path(os.environ[name]).is_file() for name in TABLES if name in os.environ)


def is_scheduler() -> bool:
    """Whether this is the process that msrun starts beside those that train."""
    return os.environ.get(ROLE) == SCHEDULER


def launched_rank() -> int:
    """The number of this process, as far as it is known before the processes have met.

    Raises:
        RankError: it is no number.
    """
    return number("RANK_ID", 0) if is_launched() else 0


def local_device() -> int:
    """The number that the launcher gave this process on its server.

    Raises:
        RankError: it is no number.
    """
    return number("DEVICE_ID", 0)


def number(name: str, default: int) -> int:
    """A variable of the environment that counts something.

    Raises:
        RankError: it is no whole number.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal():
        raise RankError(f"{name}={text}: expected a whole number; {advice()}")
    return int(text)


def advice() -> str:
    """How to be one process, or how to start several."""
    names = (*CLUSTER, TOPOLOGY_TIMEOUT, *TABLES, *SIZES[1:], *NUMBERS)
    found = [name for name in names if name in os.environ]
    words = f"for one process: unset {' '.join(found)}; " if found else ""
    return f"{words}for several: --device_num N, or scripts/run_distribute_train.sh"


def check_launch(device_target: str) -> None:
    """Before the device is opened: the variables fit together, and who is needed can be reached.

    Args:
        device_target: CPU, GPU or Ascend.

    Raises:
        RankError: they do not, or none answers.
    """
    if os.environ.get(ROLE):
        check_cluster()
    elif number("OMPI_COMM_WORLD_SIZE", 1) == 1 and number("RANK_SIZE", 1) > 1:
        check_table(device_target)


def check_table(device_target: str) -> None:
    """RANK_SIZE without msrun: of several devices with a rank table, or a word that a platform sets in any case.

    Raises:
        RankError: several processes of accelerators that cannot find each other.
    """
    size, table = os.environ["RANK_SIZE"], next((os.environ[name] for name in TABLES if os.environ.get(name)), "")
    if device_target == "CPU":
        for name in TABLES:
            os.environ.pop(name, None)  # else MindSpore would look for the other devices
        log.warning("warning: RANK_SIZE=%s is ignored: no msrun has started this process; it trains alone", size)
    elif not table:
        raise RankError(f"RANK_SIZE={size} without msrun, mpirun or a RANK_TABLE_FILE: nobody would answer; {advice()}")
    elif not Path(table).is_file():
        raise RankError(f"RANK_TABLE_FILE={table}: expected a file, found none; {advice()}")


def check_cluster() -> None:
    """The variables of msrun; returns when a worker's scheduler accepts connections.

    Raises:
        RankError: a variable is missing or makes no sense, or the scheduler is not there.
    """
    role = os.environ[ROLE]
    if role not in (WORKER, SCHEDULER):
        raise RankError(f"{ROLE}={role}: expected {WORKER} or {SCHEDULER}, which msrun sets; {advice()}")
    missing = [name for name in CLUSTER if not os.environ.get(name, "").strip()]
    if missing:
        raise RankError(f"{ROLE}={role} is set without {', '.join(missing)}: no msrun has set it; {advice()}")
    host, port = os.environ["MS_SCHED_HOST"], number("MS_SCHED_PORT", 0)
    for name in NUMBERS:
        number(name, 0)
    if not 0 < port < 65536:
        raise RankError(f"MS_SCHED_PORT={port}: expected a port from 1 to 65535; {advice()}")
    if number("MS_WORKER_NUM", 0) < 1:
        raise RankError(f"MS_WORKER_NUM={os.environ['MS_WORKER_NUM']}: expected 1 or more; {advice()}")
    by_msrun = started_by_msrun()
    if role == SCHEDULER:
        check_port(host, port)
        if not by_msrun:
            os.environ[TOPOLOGY_TIMEOUT] = str(round(ANSWER_SECONDS))
        return
    patience = MSRUN_SECONDS if by_msrun else ANSWER_SECONDS
    if not answers(host, port, patience):
        raise RankError(f"no scheduler answers at {host}:{port} (MS_SCHED_HOST, MS_SCHED_PORT) in {patience:.0f} s; "
                        f"{advice()}")  # fmt: skip


def check_port(host: str, port: int) -> None:
    """Whether the scheduler can have its port.

    Raises:
        RankError: another program has it, or the address is another machine's.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise RankError(f"the scheduler cannot have {host}:{port} ({error.strerror}); choose another port") from None


def answers(host: str, port: int, seconds: float) -> bool:
    """Whether a port accepts a connection within some time; the scheduler may start later than this process."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=2):
                return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.2)


def started_by_msrun() -> bool:
    """Whether the parent process is msrun; also where that cannot be seen."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return not Path("/proc/self").exists()
    return any(word in words for word in MSRUN)
