-- What the SQL of gold calls and an engine must provide.

-- name: surrogate_key
-- 60 bits of a hash of the natural key and the moment a version began. Stable by nature: it depends on no order of
-- loading, so that facts and dimensions can be made apart and again.
CREATE OR REPLACE TEMP MACRO surrogate_key(id, since) AS
    CAST(concat('0x', substr(md5(concat_ws('|', id, epoch_us(CAST(since AS TIMESTAMPTZ)))), 1, 15)) AS BIGINT)

-- name: in_force_from
-- The first version of a row also holds for what happened before the shop's systems told of it.
CREATE OR REPLACE TEMP MACRO in_force_from(valid_from, is_first) AS
    CASE WHEN is_first THEN TIMESTAMPTZ '1900-01-01 00:00:00+00' ELSE valid_from END
