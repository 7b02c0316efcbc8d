-- The functions that the SQL of gold calls. Every engine provides them.

-- name: surrogate_key
-- The key of one version of a row in a dimension: 60 bits of a hash of the dimension's name, the row's own key and the
-- moment the version began (NULL for a dimension without versions). The same input always gives the same key, so facts
-- and dimensions can be built independently of each other and in any order.
CREATE OR REPLACE TEMP MACRO surrogate_key(dimension, id, since) AS
    CAST(
        concat('0x', substr(md5(concat_ws('|', dimension, id, epoch_us(CAST(since AS TIMESTAMPTZ)))), 1, 15)) AS BIGINT
    )

-- name: in_force_from
-- The time from which a version applies. The first version of a row also applies to everything before it.
CREATE OR REPLACE TEMP MACRO in_force_from(valid_from, is_first) AS
    CASE WHEN is_first THEN TIMESTAMPTZ '1900-01-01 00:00:00+00' ELSE valid_from END
