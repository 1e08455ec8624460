"""Where an exploration keeps its trials: nowhere, a journal file, a database, or a proxy.

A path is a journal file, ``grpc://host:port`` Optuna's proxy, and any other URL a
database by SQLAlchemy's rules.  Databases get Optuna's heartbeats.
"""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any, Self
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from cost_models.specs.errors import SpecError
from search.explore.journal import open_journal
from search.explore.options import scrubbed, shown

HEARTBEAT_S = 10
GRACE_S = 60
"""A worker that has not been heard of for so long is dead."""
PATIENCE_S = 10
"""How long a storage may take to answer at all."""

_GRPC = "grpc://"
_GRPC_PORT = 13000
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Store:
    """An open storage."""

    where: str | None
    storage: BaseStorage
    database: RDBStorage | None = None
    """The storage as a database with heartbeats; None for other kinds."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        if self.database is not None:
            self.database.remove_session()
            self.database.engine.dispose()
        elif isinstance(self.storage, GrpcStorageProxy):
            self.storage.close()

    @property
    def shared(self) -> bool:
        """Others may see it."""
        return self.where is not None

    @property
    def name(self) -> str:
        """The URL or path without a password."""
        return shown(self.where or "memory")

    def kept(self, study: str) -> str | None:
        """What is left after an early end, and how to go on."""
        if not self.shared:
            return None
        return (
            f"what was priced is kept in study {study!r} of {self.name}; the same command goes on"
        )

    def said(self, error: BaseException) -> str:
        """The first line of an error, without a password."""
        return first_line(error, self.where)


def open_store(where: str | None, *, existing: bool = False) -> Store:
    """The storage that a URL or path names; ``existing`` makes no new file.

    Raises
    ------
    SpecError
        Where it cannot be reached, was made by another version, or is something else.
    """
    if where is None:
        return Store(None, InMemoryStorage())
    try:
        if existing:
            _require_existing(where)
        if where.startswith(_GRPC):
            return Store(where, _proxy(where))
        if "://" not in where:
            return Store(where, open_journal(where))
        database = _database(where)
    except SpecError:
        raise
    except Exception as error:  # every storage fails in its own way
        raise SpecError(
            f"storage {shown(where)!r} cannot be used: {first_line(error, where)}",
            hint=_hint(where, error),
        ) from None
    return Store(where, database, database)


def storage_errors() -> tuple[type[BaseException], ...]:
    """What an open storage raises when it fails: disks, databases, the proxy."""
    grpc = sys.modules.get("grpc")
    remote = (grpc.RpcError,) if grpc is not None else ()
    return (OSError, SQLAlchemyError, StorageInternalError, *remote)


def first_line(error: BaseException, where: str | None) -> str:
    """What an error says in one line, the innermost reason first, without a password."""
    cause = error
    while isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        cause = cause.orig
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    details = getattr(cause, "details", None)  # of the proxy
    text = str(details() if callable(details) else cause).strip()
    line = text.splitlines()[0] if text else type(cause).__name__
    return line if where is None else scrubbed(line, where)


def _require_existing(where: str) -> None:
    """No file is made for somebody who wants to join."""
    path = where if "://" not in where else None
    if where.startswith("sqlite"):
        path = make_url(where).database
    if path and path != ":memory:" and not Path(path).exists():
        raise SpecError(f"storage {shown(where)!r} cannot be used: no such file")


def _proxy(where: str) -> GrpcStorageProxy:
    parts = urlsplit(where)
    if find_spec("grpc") is None:
        raise SpecError(
            f"storage {shown(where)!r} needs a package that is not installed: grpcio",
            hint="pip install 'autopar[grpc]'",
        )
    proxy = GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or _GRPC_PORT)
    proxy.wait_server_ready(timeout=PATIENCE_S)
    return proxy


def _database(where: str) -> RDBStorage:
    url = _with_driver(make_url(where))
    for attempt in range(_ATTEMPTS):
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=_engine(url),
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
            )
        except DBAPIError as error:
            # workers that start together make the same tables at once, and one is too late
            late = "already exists" in str(error) or "duplicate key" in str(error)
            if not late or attempt == _ATTEMPTS - 1:
                raise
            sleep(0.2)
    raise AssertionError


def _with_driver(url: URL) -> URL:
    """PostgreSQL by the driver that is installed, where the URL does not say."""
    if url.drivername not in ("postgresql", "postgres"):
        return url
    driver = "psycopg" if find_spec("psycopg") else "psycopg2"
    return url.set(drivername=f"postgresql+{driver}")


def _engine(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return {"connect_args": {"timeout": GRACE_S}}
    words: dict[str, Any] = {"pool_pre_ping": True}
    if backend in ("postgresql", "mysql", "mariadb") and "connect_timeout" not in url.query:
        words["connect_args"] = {"connect_timeout": PATIENCE_S}
    return words


def _hint(where: str, error: BaseException) -> str | None:
    text = str(error)
    if "storage upgrade" in text:
        return (
            f"optuna storage upgrade --storage {shown(where)} brings its tables up to this "
            "version; its trials are kept"
        )
    if "no longer compatible" in text:
        return "its trials are kept; install the version of Optuna that made them"
    if isinstance(error, ImportError) and where.startswith("postgres"):
        return "pip install 'autopar[postgres]'"
    if isinstance(error, (OperationalError, ConnectionError)):
        return "whatever it holds is kept; the same command goes on as soon as it answers"
    return None
