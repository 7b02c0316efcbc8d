-- Sales of a product over all its versions, under its names of today. Rejected orders (status 3) are left out.
-- key: product_id
-- reads: gold.fact_sales, gold.dim_products

-- name: rows
WITH sales AS (
    SELECT
        p.product_id,
        count(DISTINCT f.order_id) AS orders,
        CAST(sum(f.quantity) AS BIGINT) AS units,
        CAST(sum(f.net_amount) AS DECIMAL(18, 4)) AS revenue,
        max(f.order_date) AS last_sold
    FROM gold.fact_sales AS f
    INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
    WHERE coalesce(f.order_status, 0) <> 3
    GROUP BY p.product_id
)

SELECT
    p.product_id,
    p.product_name,
    p.brand_name,
    p.category_name,
    s.orders,
    s.units,
    s.revenue,
    s.last_sold
FROM sales AS s
INNER JOIN gold.dim_products AS p ON s.product_id = p.product_id AND p.is_current
