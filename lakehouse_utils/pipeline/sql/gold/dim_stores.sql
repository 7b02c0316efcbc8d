-- The stores: one row per store, in the current state.
-- key: store_sk
-- reads: silver.stores

-- name: rows
SELECT
    surrogate_key('dim_stores', store_id, NULL) AS store_sk,
    store_id,
    store_name,
    phone,
    email,
    street,
    city,
    state,
    zip_code
FROM silver.stores
UNION ALL
SELECT CAST(-1 AS BIGINT), NULL, 'Unknown', NULL, NULL, NULL, NULL, NULL, NULL
