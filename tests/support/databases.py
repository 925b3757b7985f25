"""Real database servers on loopback, in a temporary folder, as a user without rights: Debian's
PostgreSQL and MariaDB (``.ci/install-test-system.sh`` installs them)."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from support.waiting import free_port, wait_until

USER = "tracer"
#: Every character that a URI, a file or a log line could stumble over.
PASSWORD = "s3cret/:p@ss?w#rd"


def _tool(name: str, *folders: str) -> str | None:
    found = [str(path) for pattern in folders for path in sorted(Path("/").glob(pattern))]
    return next((path for path in reversed(found) if os.access(path, os.X_OK)), shutil.which(name))


def _someone(*names: str) -> pwd.struct_passwd | None:
    """The user that the server runs as, for databases refuse root, or should; None: that of the tests."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("there is no user without rights to run a database as")


class Database:
    """A server with one account and any number of databases."""

    accounts: tuple[str, ...] = ()

    def __init__(self):
        self.port = free_port()
        self._user = _someone(*self.accounts)
        # (Not below pytest's own folder, which the other user may not enter.)
        self.folder = Path(tempfile.mkdtemp(prefix="mlflow-fasttrace-database-"))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.process: subprocess.Popen | None = None
        self._prepare()
        self.start()

    def _as_user(self) -> dict:
        """Arguments of `subprocess` that make it run as that user."""
        user = self._user
        if user is None:
            return {"cwd": self.folder}
        return {
            "user": user.pw_uid,
            "group": user.pw_gid,
            "extra_groups": [],
            "cwd": self.folder,
            "env": {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
        }

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, **self._as_user())
        assert done.returncode == 0, done.stdout + done.stderr

    def _prepare(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """As the server's administrator."""
        raise NotImplementedError

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            self.execute("SELECT 1")
        except Exception:
            return False
        return True

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            **self._as_user(),
        )
        wait_until(self.answers, 300, "the database's answer")

    def stop(self) -> None:
        """Fast, without waiting for clients."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT if isinstance(self, Postgres) else 15)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, database: str) -> str:
        """A new database; its URI."""
        self.execute(f"CREATE DATABASE {database}")
        return self.uri(database)

    def uri(self, database: str) -> str:
        raise NotImplementedError


class Postgres(Database):
    """PostgreSQL."""

    accounts = ("postgres",)

    def __init__(self):
        self._initdb = _tool("initdb", "usr/lib/postgresql/*/bin/initdb")
        self._postgres = _tool("postgres", "usr/lib/postgresql/*/bin/postgres")
        if not (self._initdb and self._postgres):
            pytest.skip("PostgreSQL is not installed (sh .ci/install-test-system.sh, as root)")
        super().__init__()

    def _prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        command = f"{self._initdb} -D data -U {USER} --pwfile=password -A scram-sha-256 -E UTF8 -N"
        self._run(*command.split())
        secret.unlink()

    def _command(self) -> list[str]:
        options = "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"
        return [
            self._postgres,
            *("-D", "data", "-p", str(self.port)),
            *(word for option in options for word in ("-c", option)),
        ]

    def execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
        )
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()

    def uri(self, database: str) -> str:
        return f"postgresql+psycopg2://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"


class Mysql(Database):
    """MariaDB, by MySQL's protocol."""

    accounts = ("mysql",)

    def __init__(self):
        self._install = _tool("mariadb-install-db", "usr/bin/mariadb-install-db")
        self._server = _tool("mariadbd", "usr/sbin/mariadbd")
        if not (self._install and self._server):
            pytest.skip("MariaDB is not installed (sh .ci/install-test-system.sh, as root)")
        super().__init__()

    def _prepare(self) -> None:
        self._run(
            self._install,
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        quoted = PASSWORD.replace("'", "''")
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{quoted}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )
        (self.folder / "init.sql").chmod(0o644)

    def _command(self) -> list[str]:
        return [
            self._server,
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--init-file={self.folder}/init.sql",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--character-set-server=utf8mb4",
        ]

    def execute(self, statement: str) -> None:
        import pymysql

        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD)
        try:
            connection.cursor().execute(statement)
        finally:
            connection.close()

    def uri(self, database: str) -> str:
        return f"mysql+pymysql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"
