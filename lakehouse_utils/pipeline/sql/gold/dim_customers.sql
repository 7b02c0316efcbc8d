-- The customers: one row per version of a customer (slowly changing dimension, type 2).
-- key: customer_id, customer_sk
-- reads: silver.customers_history

-- name: changed_keys
-- Customers with a change since the last refresh.
SELECT DISTINCT customer_id
FROM silver.customers_history
WHERE _bronze_version > {customers_history_version}

-- name: rows
SELECT
    surrogate_key('dim_customers', customer_id, valid_from) AS customer_sk,
    customer_id,
    first_name,
    last_name,
    phone,
    email,
    street,
    city,
    state,
    zip_code,
    in_force_from(valid_from, is_first) AS valid_from,
    valid_to,
    is_current
FROM silver.customers_history
WHERE customer_id {is_changed}

-- name: unknown_member
-- The row that facts without a known customer point to.
SELECT
    CAST(-1 AS BIGINT) AS customer_sk,
    NULL AS customer_id,
    'Unknown' AS first_name,
    'Unknown' AS last_name,
    TIMESTAMPTZ '1900-01-01 00:00:00+00' AS valid_from,
    true AS is_current
