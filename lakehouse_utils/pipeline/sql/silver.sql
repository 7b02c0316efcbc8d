-- The statements of `silver.py`, the same for every source table. Placeholders in braces are replaced by relations and
-- by SQL made from the table's description. The SQL is DuckDB's, without features that the other engines lack.


-- name: accepted
-- The rows of {rows} (from bronze) that meet all rules, typed. _version_at is the time from which the values apply, if
-- the source says so.
SELECT
    {values},
    {version_at} AS _version_at,
    _batch,
    _source_file,
    _source_line,
    _ingested_at
FROM {rows}
WHERE
    {all_conditions}


-- name: rejected
-- The other rows, as quarantine stores them. `raw` has the original values, as JSON.
SELECT
    _batch,
    _source_file,
    _source_line,
    _ingested_at,
    'silver' AS layer,
    concat_ws('; ', {all_problems}) AS reason,
    to_json(map([{names}], [{values}])) AS raw
FROM {rows}
WHERE (
    {all_conditions}
) IS NOT TRUE


-- name: of_last_delivery
-- Rejected rows of the last delivery of each file in {rows}: a later delivery replaces the earlier one.
SELECT rejected.*
FROM {rejected} AS rejected
SEMI JOIN (SELECT _source_file, max(_ingested_at) AS _ingested_at FROM {rows} GROUP BY _source_file) AS last_delivery
    ON rejected._source_file = last_delivery._source_file AND rejected._ingested_at = last_delivery._ingested_at


-- name: not_quarantined
-- Rejected rows that quarantine does not hold yet. A row that bronze has read again, and that is still the same, is held
-- once; one that was resolved by a later delivery of its file is not a problem again.
SELECT rejected.*
FROM {rejected} AS rejected
ANTI JOIN {quarantined} AS quarantined
    ON rejected._source_file = quarantined._source_file
    AND rejected._source_line = quarantined._source_line
    AND rejected.raw = quarantined.raw
    AND (quarantined.resolved_at IS NULL OR rejected._ingested_at = quarantined._ingested_at)
    AND quarantined.layer = 'silver'


-- name: accepted_now
-- Rows in quarantine that silver rejected earlier and does not reject any more, or that bronze has lost.
SELECT
    quarantined._source_file,
    quarantined._source_line,
    quarantined.raw,
    quarantined._ingested_at,
    now() AS resolved_at
FROM {quarantined} AS quarantined
ANTI JOIN {rejected} AS rejected
    ON rejected._source_file = quarantined._source_file
    AND rejected._source_line = quarantined._source_line
    AND rejected.raw = quarantined.raw
WHERE
    quarantined.layer = 'silver'
    AND quarantined.resolved_at IS NULL
    AND coalesce(quarantined._ingested_at <= (SELECT max(_ingested_at) FROM {rows}), true)


-- name: version
-- The rows of {versions} with the columns of silver.
SELECT
    {columns},
    _version_at,
    _batch,
    _source_file,
    _source_line,
    {bronze_version} AS _bronze_version
FROM {versions}


-- name: newest_first
-- The terms of an ORDER BY that puts the newest version of a key first.
{newest_first}_version_at DESC NULLS LAST,
_batch DESC,
_ingested_at DESC,
_source_file DESC,
_source_line DESC


-- name: newest
-- One row per key: the newest version.
{version}
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {newest_first}) = 1


-- name: history
-- All versions of each key in {versions}. A version ends when the next one begins. A version without a change is left
-- out. Of several versions with the same time, the newest counts. A version is also left out if a newer one began
-- before it, because then it was never in force. A version without a time applies from the beginning: when it arrived
-- says nothing about its values, and would give other keys each time that the table is built.
WITH ranked AS (
    SELECT
        {columns},
        coalesce(_version_at, TIMESTAMPTZ '1900-01-01 00:00:00+00') AS valid_from,
        row_number() OVER (
            PARTITION BY {key}
            ORDER BY
                _is_in_history,
                {newest_first}_version_at DESC NULLS LAST,
                _batch DESC,
                _ingested_at DESC,
                _source_file DESC,
                _source_line DESC
        ) AS _age
    FROM {versions}
),

moments AS (
    SELECT {columns}, valid_from
    FROM ranked
    QUALIFY _age = min(_age) OVER (PARTITION BY {key} ORDER BY valid_from RANGE UNBOUNDED PRECEDING)
),

changes AS (
    SELECT {columns}, valid_from
    FROM moments
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY valid_from) = 1
        OR {differs_from_previous}
)

SELECT
    {columns},
    valid_from,
    lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) AS valid_to,
    row_number() OVER (PARTITION BY {key} ORDER BY valid_from) = 1 AS is_first,
    lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) IS NULL AS is_current,
    {bronze_version} AS _bronze_version
FROM changes


-- name: late_keys
-- Keys of {accepted} with a row that is older than the one in {current}: their history is rebuilt from all of bronze.
SELECT DISTINCT {key}
FROM {accepted} AS accepted
INNER JOIN {current} AS existing USING ({key})
WHERE ({not_older}) IS NOT TRUE


-- name: versions
-- The input for the history of the new rows' keys: the new rows and the versions in the history; for late keys, all
-- rows of bronze.
SELECT {columns}, _version_at, _batch, _source_file, _source_line, _ingested_at, false AS _is_in_history
FROM {accepted}
ANTI JOIN {late_keys} USING ({key})
UNION ALL
SELECT {columns}, valid_from, '', '', 0, TIMESTAMPTZ '1970-01-01 00:00:00+00', true
FROM {history}
SEMI JOIN {accepted} USING ({key})
ANTI JOIN {late_keys} USING ({key})
UNION ALL
SELECT {columns}, _version_at, _batch, _source_file, _source_line, _ingested_at, false
FROM {all_accepted}
SEMI JOIN {late_keys} USING ({key})
