-- Two statements of `merge.py`. Placeholders in braces are replaced by relations and lists of columns.


-- name: difference
-- The changes that turn the rows of {existing} into those of {desired}.
WITH desired AS (
    SELECT *, true AS _exists FROM {desired}
),

existing AS (
    SELECT *, true AS _exists FROM {existing}
)

SELECT
    {desired_columns},
    CASE WHEN existing._exists THEN 'update' ELSE 'insert' END AS _change
FROM desired
LEFT JOIN existing ON {same_key}
WHERE existing._exists IS NULL OR {different}
UNION ALL
SELECT
    {existing_columns},
    'delete' AS _change
FROM existing
LEFT JOIN desired ON {same_key}
WHERE desired._exists IS NULL


-- name: file_ranges
-- For each file that may hold a key of {source}: the minimum and the maximum of those keys. {files} has the minimum and
-- the maximum of each file, from the log.
SELECT
    min(source.{column}) AS low,
    max(source.{column}) AS high
FROM {files} AS files
INNER JOIN {source} AS source ON source.{column} BETWEEN files.low AND files.high
GROUP BY files.path
ORDER BY low
