-- Sales of a product over all its versions. Rejected orders (status 3) are left out.
-- key: product_id
-- reads: gold.fact_sales, gold.dim_products

-- name: rows
SELECT
    p.product_id,
    max(CASE WHEN p.is_current THEN p.product_name END) AS product_name,
    max(p.brand_name) AS brand_name,
    max(p.category_name) AS category_name,
    count(DISTINCT f.order_id) AS orders,
    CAST(sum(f.quantity) AS BIGINT) AS units,
    CAST(sum(f.net_amount) AS DECIMAL(18, 4)) AS revenue,
    max(f.order_date) AS last_sold
FROM gold.fact_sales AS f
INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
WHERE p.product_id IS NOT NULL AND coalesce(f.order_status, 0) <> 3
GROUP BY p.product_id
