-- Sales by month, store and category. Rejected orders (status 3) and lines without a date are left out.
-- key: month, store_name, category_name
-- reads: gold.fact_sales, gold.dim_stores, gold.dim_products

-- name: rows
SELECT
    CAST(date_trunc('month', f.order_date) AS DATE) AS month,
    s.store_name,
    p.category_name,
    count(DISTINCT f.order_id) AS orders,
    CAST(sum(f.quantity) AS BIGINT) AS units,
    CAST(sum(f.net_amount) AS DECIMAL(18, 4)) AS revenue
FROM gold.fact_sales AS f
INNER JOIN gold.dim_stores AS s ON f.store_sk = s.store_sk
INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
WHERE f.order_date IS NOT NULL AND coalesce(f.order_status, 0) <> 3
GROUP BY ALL
