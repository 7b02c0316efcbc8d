-- The staff: one row per member of staff, in the current state, with the names of the store and the manager.
-- key: staff_sk
-- reads: silver.staffs, silver.stores

-- name: rows
SELECT
    surrogate_key('dim_staffs', s.staff_id, NULL) AS staff_sk,
    s.staff_id,
    s.first_name,
    s.last_name,
    s.email,
    s.phone,
    s.active,
    s.store_id,
    coalesce(t.store_name, 'Unknown') AS store_name,
    s.manager_id,
    CASE WHEN m.staff_id IS NOT NULL THEN concat(m.first_name, ' ', m.last_name) END AS manager_name
FROM silver.staffs AS s
LEFT JOIN silver.stores AS t ON s.store_id = t.store_id
LEFT JOIN silver.staffs AS m ON s.manager_id = m.staff_id
UNION ALL
SELECT CAST(-1 AS BIGINT), NULL, 'Unknown', 'Unknown', NULL, NULL, NULL, NULL, 'Unknown', NULL, NULL
