-- The products: one row per version of a product (slowly changing dimension, type 2). All versions have the
-- current names of the brand and the category.
-- key: product_id, product_sk
-- reads: silver.products_history, silver.brands, silver.categories

-- name: changed_keys
-- Products with a change since the last refresh, in the product, its brand or its category.
SELECT DISTINCT product_id
FROM silver.products_history
WHERE _bronze_version > {products_history_version}
    OR brand_id IN (SELECT brand_id FROM silver.brands WHERE _bronze_version > {brands_version})
    OR category_id IN (SELECT category_id FROM silver.categories WHERE _bronze_version > {categories_version})

-- name: rows
SELECT
    surrogate_key('dim_products', p.product_id, p.valid_from) AS product_sk,
    p.product_id,
    p.product_name,
    p.brand_id,
    coalesce(b.brand_name, 'Unknown') AS brand_name,
    p.category_id,
    coalesce(c.category_name, 'Unknown') AS category_name,
    p.model_year,
    p.list_price,
    in_force_from(p.valid_from, p.is_first) AS valid_from,
    p.valid_to,
    p.is_current
FROM silver.products_history AS p
LEFT JOIN silver.brands AS b ON p.brand_id = b.brand_id
LEFT JOIN silver.categories AS c ON p.category_id = c.category_id
WHERE p.product_id {is_changed}

-- name: unknown_member
-- The row that facts without a known product point to.
SELECT
    CAST(-1 AS BIGINT) AS product_sk,
    NULL AS product_id,
    'Unknown' AS product_name,
    'Unknown' AS brand_name,
    'Unknown' AS category_name,
    TIMESTAMPTZ '1900-01-01 00:00:00+00' AS valid_from,
    true AS is_current
