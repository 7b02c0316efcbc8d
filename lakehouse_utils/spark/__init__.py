"""Spark Connect: sessions, the Sail server that pip installs, and a small Apache Spark cluster on this machine."""
