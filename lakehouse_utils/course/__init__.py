"""The tools that notebooks import. A notebook needs at most these six names."""

from lakehouse_utils.course import figures, lessons, request_log, views
from lakehouse_utils.course.exercises import check, summary

__all__ = ["check", "figures", "lessons", "request_log", "summary", "views"]
