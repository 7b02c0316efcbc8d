-- Silver, for every source table alike: what stands in braces is filled in from the table's description.
-- The statements are in DuckDB's SQL, as far as other engines have the same.


-- name: accepted
-- Good rows of {rows} (rows of bronze), typed. _version_at: since when the values hold, as far as the source tells.
SELECT
    {values},
    {version_at} AS _version_at,
    _batch,
    _source_file,
    _source_line,
    _ingested_at
FROM {rows}
WHERE
    {rules}


-- name: rejected
-- The other rows, as quarantine keeps them. `raw` are the values as they came, as JSON.
SELECT
    _batch,
    _source_file,
    _source_line,
    _ingested_at,
    'silver' AS layer,
    concat_ws('; ', {problems}) AS reason,
    to_json(map([{names}], [{values}])) AS raw
FROM {rows}
WHERE NOT (
    {rules}
)


-- name: not_held
-- Rejected rows that quarantine doesn't hold yet.
SELECT rejected.*
FROM rejected
ANTI JOIN held
    ON rejected._source_file = held._source_file
    AND rejected._source_line = held._source_line
    AND rejected._ingested_at = held._ingested_at
    AND held.layer = 'silver'


-- name: current
-- One row a key: the newest of its versions.
SELECT
    {columns},
    _version_at,
    _batch,
    _source_file,
    _source_line,
    {bronze_version} AS _bronze_version
FROM {versions}
QUALIFY row_number() OVER (
    PARTITION BY {key}
    ORDER BY
        {newest_first}_version_at DESC NULLS LAST,
        _batch DESC,
        _ingested_at DESC,
        _source_file DESC,
        _source_line DESC
) = 1


-- name: history
-- All versions of a key: what changes nothing is left out, and a version ends where the next begins. Of versions of one
-- moment the newest is taken, and none that came after a newer one, for that never was in force.
WITH ranked AS (
    SELECT
        {columns},
        coalesce(_version_at, _ingested_at) AS valid_from,
        row_number() OVER (
            PARTITION BY {key}
            ORDER BY
                _known,
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
-- Keys with a new row that is older than what silver has: their history is made again, from all of bronze.
SELECT DISTINCT {key}
FROM incoming_accepted
INNER JOIN known_current USING ({key})
WHERE ({not_older}) IS NOT TRUE


-- name: versions
-- What the history of the new rows' keys is made from: the new rows, and the versions that are known.
SELECT {columns}, _version_at, _batch, _source_file, _source_line, _ingested_at, false AS _known
FROM incoming_accepted
ANTI JOIN late_keys USING ({key})
UNION ALL
SELECT {columns}, valid_from, '', '', 0, TIMESTAMPTZ '1970-01-01 00:00:00+00', true
FROM known_history
SEMI JOIN incoming_accepted USING ({key})
ANTI JOIN late_keys USING ({key})
UNION ALL
SELECT {columns}, _version_at, _batch, _source_file, _source_line, _ingested_at, false
FROM everything_accepted
SEMI JOIN late_keys USING ({key})
