"""Where it was measured: the machine and the versions."""
import os
import platform
import re
import shutil
import subprocess


def describe(bench):
    """(what, value) in the order in which a reader wants them."""
    load = os.getloadavg()[0]
    facts = [("machine", f"{os.cpu_count()} cores, {cpu()}, {memory()} GB"), ("kernel", f"{platform.system()} {platform.release()}")]
    version = bench.postgres.sql("SELECT current_setting('server_version'), (distsys.version()).library, current_setting('fsync'), "
                                 "current_setting('wal_sync_method')")[0]
    facts += [("PostgreSQL", f"{version[0]}, fsync = {version[2]}, wal_sync_method = {version[3]}"), ("distsys", version[1])]
    if shutil.which("redis-server"):
        out = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
        facts.append(("Redis", re.search(r"v=([\d.]+)", out)[1]))
    if "pgq" not in bench.absent:
        facts.append(("PgQ", bench.postgres.sql("SELECT extversion FROM pg_extension WHERE extname = 'pgq'")[0][0]))
    facts.append(("load of the machine before", f"{load:.1f}"))
    return facts


def cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.machine()


def memory():
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
