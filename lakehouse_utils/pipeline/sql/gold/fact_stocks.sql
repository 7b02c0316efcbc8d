-- The stocks: one row per store and product, with the quantity from the last batch.
-- key: store_id, product_id
-- reads: silver.stocks, silver.products_history, silver.stores

-- name: changed_keys
-- Products with a change since the last refresh; a change to a store affects all products in it.
SELECT product_id
FROM silver.stocks
WHERE _bronze_version > {stocks_version}
    OR store_id IN (SELECT store_id FROM silver.stores WHERE _bronze_version > {stores_version})
UNION
SELECT product_id
FROM silver.products_history
WHERE _bronze_version > {products_history_version}

-- name: rows
SELECT
    s.store_id,
    s.product_id,
    CASE WHEN t.store_id IS NOT NULL THEN surrogate_key('dim_stores', t.store_id, NULL) ELSE -1 END AS store_sk,
    CASE
        WHEN p.product_id IS NOT NULL THEN surrogate_key('dim_products', p.product_id, p.valid_from) ELSE -1
    END AS product_sk,
    s.quantity
FROM silver.stocks AS s
LEFT JOIN silver.stores AS t ON s.store_id = t.store_id
LEFT JOIN silver.products_history AS p ON s.product_id = p.product_id AND p.is_current
WHERE s.product_id {is_changed}
