"""The contracts of strategies and backends as test classes, also for those that live elsewhere. Needs pytest."""
