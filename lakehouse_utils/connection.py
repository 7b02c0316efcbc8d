"""DuckDB's connection, which refuses the tables that DuckDB would read wrongly (`readers.DUCKDB`).

DuckDB finds a DataFrame by the name of a variable where it is called from: here first, then in the user's cell. So
nothing in this module has a name that a table could have.
"""

import itertools as _itertools
import re as _re
import weakref as _weakref
from collections.abc import Collection as _Collection
from contextlib import suppress as _suppress

import duckdb as _duckdb

from lakehouse_utils.errors import LakehouseError as _LakehouseError
from lakehouse_utils.readers import Watch as _Watch

# The macro goes before DuckDB's own function of that name, which it calls; the plan is the same. Each connection has it
# as a TEMP macro, which is found wherever USE leads; the database has it, for connections that were made unseen.
# DuckDB keeps a bare pointer to a Python function, which its connection keeps alive, and no other connection
# (https://github.com/duckdb/duckdb-python/issues/530). So each has its own, and the database's lives as long as Python.
_NO_VERSION = 2**64 - 1  # as DuckDB itself puts it
_MACRO = f"""
    CREATE OR REPLACE {{temp}} MACRO delta_scan(
        path, version := {_NO_VERSION}, filename := false, pushdown_filters := 'all', pushdown_partition_info := true
    ) AS TABLE FROM system.main.delta_scan(
        CASE WHEN {{refusal}}(path::VARCHAR, version::UBIGINT) IS NULL THEN path::VARCHAR
             ELSE error({{refusal}}(path::VARCHAR, version::UBIGINT)) END,
        version := version::UBIGINT, filename := filename,
        pushdown_filters := pushdown_filters, pushdown_partition_info := pushdown_partition_info
    )
"""
_NUMBERS = _itertools.count(1)
_KEPT = []
_ATTACHING = (_duckdb.StatementType.ATTACH, _duckdb.StatementType.DETACH)
_PATH = _re.compile(r"'(?:delta:)?((?:[^']|'')*)'")
_VERSION = _re.compile(r"\bVERSION\s+'?(\d+)", _re.IGNORECASE)
_AT_VERSION = _re.compile(r"\bAT\s*\(\s*VERSION\s*=>\s*(\d+)", _re.IGNORECASE)


class Connection:
    """A DuckDBPyConnection, with all that it can, but for wrong rows of tables that another engine wrote.

    `delta_scan` is guarded inside DuckDB. ATTACH can't be: so each statement is looked at before it goes on.
    """

    def __init__(self, native: _duckdb.DuckDBPyConnection, watch: _Watch) -> None:
        self._native = native
        self._watch = watch
        self._guard(native, watch.refusal, f"_refusal_{next(_NUMBERS)}", "TEMP")

    @classmethod
    def guarding(cls, native: _duckdb.DuckDBPyConnection, watch: _Watch) -> "Connection":
        """The guard for a new database's first connection."""
        there = _weakref.ref(watch)

        def refusal(path: str, version: int | None) -> str | None:
            watch = there()
            return watch.refusal(path, version) if watch else "lake.duckdb() is gone: keep it in a variable"

        cls._guard(native, refusal, "_refusal", "")
        native.execute("SET python_scan_all_frames = true")
        return cls(native, watch)

    @staticmethod
    def _guard(native: _duckdb.DuckDBPyConnection, refusal, name: str, temp: str) -> None:
        def asked(path: str, version: int) -> str | None:
            return refusal(path, None if version == _NO_VERSION else version)

        if not temp:
            _KEPT.append(asked)  # it holds the watch weakly
        native.create_function(name, asked, ["VARCHAR", "UBIGINT"], "VARCHAR", null_handling="special")
        native.execute(_MACRO.format(temp=temp, refusal=name))

    def __getattr__(self, name: str):
        return getattr(self._native, name)

    def __repr__(self) -> str:
        return repr(self._native)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self._native.close()

    def cursor(self) -> "Connection":
        return Connection(self._native.cursor(), self._watch)

    duplicate = cursor

    def execute(self, *_given, **_named) -> "Connection":
        self._ask("execute", _given, _named)
        return self

    def executemany(self, *_given, **_named) -> "Connection":
        self._ask("executemany", _given, _named)
        return self

    def sql(self, *_given, **_named):
        return self._ask("sql", _given, _named)

    def query(self, *_given, **_named):
        return self._ask("query", _given, _named)

    def from_query(self, *_given, **_named):
        return self._ask("from_query", _given, _named)

    def _ask(self, _name: str, _given: tuple, _named: dict):
        self._look_at(*_given[:1], **({} if _given else _named))
        try:
            _answer = getattr(self._native, _name)(*_given, **_named)
            self._look_after(*_given[:1], **({} if _given else _named))
            return _answer
        except _duckdb.InvalidInputException as _error:
            if self._watch.said and self._watch.said in str(_error):
                raise _LakehouseError(self._watch.said) from None
            raise

    def _look_at(self, query: object = "", **_) -> None:
        """Refuse to attach what would be read wrongly, and to read what has become so since it was attached."""
        text = query if isinstance(query, str) else getattr(query, "query", "")
        attached, reads = self._watch.attached, True
        if "attach" in text.lower():
            there = self._attached()
            attached -= {place for place in attached if place[0] not in there}
            statements = self._native.extract_statements(text)
            reads = any(statement.type not in _ATTACHING for statement in statements)
            for statement in statements:
                if statement.type == _duckdb.StatementType.ATTACH and (path := _PATH.search(statement.query)):
                    version = _VERSION.search(statement.query)
                    place = path[1].replace("''", "'"), int(version[1]) if version else None
                    self._refuse(*place)
                    attached.add(place)
        if attached and reads:
            there = self._attached()
            for path, version in list(attached):
                self._refuse(path, version, there)
                for at in _AT_VERSION.findall(text):
                    self._refuse(path, int(at), there)

    def _look_after(self, query: object = "", **_) -> None:
        """Refuse what was attached by a path that can't be told from the statement: E'...', $$...$$, a variable."""
        text = query if isinstance(query, str) else getattr(query, "query", "")
        if "attach" not in text.lower():
            return
        version = _VERSION.search(text)
        known = {path for path, _ in self._watch.attached}
        for path, name in self._attached().items():
            if path in known:
                continue
            place = path, int(version[1]) if version else None
            self._watch.attached.add(place)
            try:
                self._refuse(*place)
            except _LakehouseError:
                with _suppress(_duckdb.Error):  # it is in use: then no statement reads it until it isn't
                    self._native.execute('DETACH "{}"'.format(name.replace('"', '""')))
                    self._watch.attached.discard(place)
                raise

    def _attached(self) -> dict[str, str]:
        """The names of the Delta tables that are attached as databases, by their paths."""
        asked = "SELECT path, database_name FROM duckdb_databases() WHERE type = 'delta'"
        return dict(self._native.cursor().execute(asked).fetchall())

    def _refuse(self, uri: str, version: int | None, there: _Collection[str] | None = None) -> None:
        if (there is None or uri in there) and (sentence := self._watch.refusal(uri, version)):
            raise _LakehouseError(sentence)
