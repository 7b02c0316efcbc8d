"""What the notebooks and the pipeline share: settings, the S3 server, the lake's addresses, sample data, views, checks.

Imports run one way: settings <- embedded_s3 <- lake <- pipeline, look, exercises <- notebooks, ingestion_processor.
"""
