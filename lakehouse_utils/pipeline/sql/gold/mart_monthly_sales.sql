-- Sales by month, store and category. Rejected orders (status 3) and lines without a date are left out.
-- key: month, store_name, category_name
-- reads: gold.fact_sales, gold.dim_stores, gold.dim_products

-- name: rows
-- Orders are counted as rows, because count(DISTINCT ...) would have to fit into memory.
WITH orders AS (
    SELECT
        CAST(date_trunc('month', f.order_date) AS DATE) AS month,
        s.store_name,
        p.category_name,
        f.order_id,
        sum(f.quantity) AS units,
        sum(f.net_amount) AS revenue
    FROM gold.fact_sales AS f
    INNER JOIN gold.dim_stores AS s ON f.store_sk = s.store_sk
    INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
    WHERE f.order_date IS NOT NULL AND coalesce(f.order_status, 0) <> 3
    GROUP BY 1, s.store_name, p.category_name, f.order_id
)

SELECT
    month,
    store_name,
    category_name,
    count(*) AS orders,
    CAST(sum(units) AS BIGINT) AS units,
    CAST(sum(revenue) AS DECIMAL(18, 4)) AS revenue
FROM orders
GROUP BY month, store_name, category_name
