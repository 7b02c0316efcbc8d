"""The package behind the course and the pipeline.

Notebooks need at most six names, all from `lakehouse_utils.course`. Your own code needs `lakehouse_utils.lake.Lake`.
Everything else is internal. Each part imports only from those before it in this list: errors, command_line, settings,
processes, embedded_s3, lake, spark, pipeline, sample_data, course.
"""

__version__ = "0.1.0"
