"""A lakehouse on S3: the pipeline that builds it, the servers it can run on, and the tools of the course.

Each part imports only from those before it: `errors`, `settings`, `processes`, `embedded_s3`, `lake`, `spark`,
`pipeline`, `sample_data`, `course`.

A notebook needs at most these six names:

    from lakehouse_utils.course import check, figures, lessons, request_log, summary, views
"""
