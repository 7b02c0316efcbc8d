-- name: difference
-- What must happen to the rows of {existing} so that they become those of {fresh}; no other rows are touched.
WITH fresh AS (
    SELECT *, true AS _there FROM {fresh}
),

existing AS (
    SELECT *, true AS _there FROM {existing}
)

SELECT
    {fresh_columns},
    CASE WHEN existing._there THEN 'update' ELSE 'insert' END AS _change
FROM fresh
LEFT JOIN existing ON {same_key}
WHERE existing._there IS NULL OR {unlike}
UNION ALL
SELECT
    {existing_columns},
    'delete' AS _change
FROM existing
LEFT JOIN fresh ON {same_key}
WHERE fresh._there IS NULL


-- name: file_ranges
-- For each file of a table that may hold a key of `merging`: the least and the greatest of those keys. `files` has each
-- file's own least and greatest, from the log.
SELECT
    min(merging.{column}) AS low,
    max(merging.{column}) AS high
FROM files
INNER JOIN merging ON merging.{column} BETWEEN files.low AND files.high
GROUP BY files.path
ORDER BY low
